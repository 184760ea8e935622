// SPDX-License-Identifier: MIT OR Apache-2.0
//
// x87, SSE and AVX registers across context switches: many processes and threads hold patterns of their own, yield and
// are pre-empted, and look whether what they hold is still theirs.

#include "workload.h"
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#ifdef __x86_64__
#define REGISTERS 16
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define YIELD "movl $24, %%eax\n\tsyscall\n\t"
#define CLOBBERS                                                                                                      \
	"rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
		"xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#else
#define REGISTERS 8
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define YIELD "movl $158, %%eax\n\tint $0x80\n\t"
#define CLOBBERS "eax", "memory", "cc"
#endif

struct image {
	unsigned char vector[REGISTERS][32];
	unsigned char x87[8][16];
	uint32_t mxcsr;
	uint16_t control;
} __attribute__((aligned(32)));

#define LOAD_YMM(n) "vmovdqu " #n "*32(%[in]), %%ymm" #n "\n\t"
#define SAVE_YMM(n) "vmovdqu %%ymm" #n ", " #n "*32(%[out])\n\t"
#define LOAD_XMM(n) "movdqu " #n "*32(%[in]), %%xmm" #n "\n\t"
#define SAVE_XMM(n) "movdqu %%xmm" #n ", " #n "*32(%[out])\n\t"
#define LOAD_X87(n) "fldt %c[x87]+(7-" #n ")*16(%[in])\n\t"
#define SAVE_X87(n) "fstpt %c[x87]+" #n "*16(%[out])\n\t"
#define ALL_X87(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

// Loads all registers, either yields or spins so many times, and stores them.
#define HOLD(name, load, save, wait, end)                                                                             \
	static void name(const struct image *in, struct image *out, long times)                                       \
	{                                                                                                             \
		static const uint16_t control = 0x37f;                                                                \
		static const uint32_t mxcsr = 0x1f80;                                                                 \
		__asm__ volatile("fninit\n\tfldcw %c[cw](%[in])\n\tldmxcsr %c[csr](%[in])\n\t"                        \
				 ALL_X87(LOAD_X87) EACH(load)                                                         \
				 "7:\t" wait "dec %[times]\n\tjnz 7b\n\t"                                             \
				 EACH(save) ALL_X87(SAVE_X87)                                                         \
				 "fnstcw %c[cw](%[out])\n\tstmxcsr %c[csr](%[out])\n\t" end                           \
				 "fldcw %[control]\n\tldmxcsr %[mxcsr]"                                               \
				 : [times] "+r"(times)                                                                \
				 : [in] "r"(in), [out] "r"(out), [x87] "i"(offsetof(struct image, x87)),              \
				   [cw] "i"(offsetof(struct image, control)), [csr] "i"(offsetof(struct image, mxcsr)), \
				   [control] "m"(control), [mxcsr] "m"(mxcsr)                                         \
				 : CLOBBERS, "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");                    \
	}
HOLD(yield_ymm, LOAD_YMM, SAVE_YMM, YIELD, "vzeroupper\n\t")
HOLD(spin_ymm, LOAD_YMM, SAVE_YMM, "", "vzeroupper\n\t")
HOLD(yield_xmm, LOAD_XMM, SAVE_XMM, YIELD, "")
HOLD(spin_xmm, LOAD_XMM, SAVE_XMM, "", "")

static int has_avx(void)
{
	unsigned a, b, c, d, low, high;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & 6) == 6;
}

static void pattern(struct image *image, uint32_t seed)
{
	memset(image, 0, sizeof *image);
	fill(image->vector, sizeof image->vector, seed);
	for (int i = 0; i < 8; i++) {
		long double value = (long double)seed * 3 + i + 0.125L;
		memcpy(image->x87[i], &value, 10);
	}
	image->mxcsr = 0x1f80 | seed % 4 << 13;
	image->control = (uint16_t)(0x37f | seed % 4 << 10);
}

// Holds a pattern once; answers whether all of it was still there.
static int hold(int avx, int yields, uint32_t seed, long times)
{
	struct image in, out;
	pattern(&in, seed);
	memset(&out, 0, sizeof out);
	if (avx)
		(yields ? yield_ymm : spin_ymm)(&in, &out, times);
	else
		(yields ? yield_xmm : spin_xmm)(&in, &out, times);
	for (int i = 0; i < REGISTERS; i++)
		CHECK(memcmp(in.vector[i], out.vector[i], avx ? 32 : 16) == 0);
	CHECK(memcmp(in.x87, out.x87, sizeof in.x87) == 0);
	CHECK(in.mxcsr == out.mxcsr && in.control == out.control);
	return HELD;
}

static int64_t deadline;

static void *holder(void *argument)
{
	uint32_t seed = (uint32_t)(uintptr_t)argument;
	int avx = has_avx() && seed % 4 != 3; // some use no AVX, so that their upper halves stay initial
	for (uint32_t i = 1; now(CLOCK_MONOTONIC) < deadline; i++) {
		int yields = i % 4 != 0;
		if (hold(avx, yields, seed * 1000 + i, yields ? 25 : 300000) != HELD)
			return 0;
	}
	return argument;
}

static int holders(void *argument)
{
	enum { THREADS = 3 };
	pthread_t thread[THREADS];
	uintptr_t seed = *(uint32_t *)argument;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], 0, holder, (void *)(seed * 8 + i)) == 0);
	for (int i = 0; i < THREADS; i++) {
		void *fine;
		CHECK(pthread_join(thread[i], &fine) == 0);
		CHECK(fine);
	}
	return HELD;
}

static int run_holders(int64_t time)
{
	pid_t child[4];
	deadline = now(CLOCK_MONOTONIC) + time;
	for (uint32_t i = 0; i < COUNT(child); i++) {
		uint32_t seed = i + 1;
		child[i] = start(holders, &seed);
	}
	for (size_t i = 0; i < COUNT(child); i++)
		CHECK(held(child[i]) == HELD);
	return HELD;
}

int part_vectors(void)
{
	CHECK(run_holders(scaled(1000) * MS) == HELD);
	note(has_avx() ? "x87, SSE, AVX" : "x87, SSE");
	return HELD;
}

static volatile int beats, wrong;

static void on_beat(int number)
{
	(void)number;
	beats++;
	if (hold(has_avx(), beats % 2, 77 + (uint32_t)beats, beats % 2 ? 3 : 1000) != HELD)
		wrong = 1;
}

// The same while a signal handler uses all registers too.
int part_vectors_signals(void)
{
	struct sigaction action = { .sa_handler = on_beat, .sa_flags = SA_RESTART };
	struct itimerval beat = { { 0, 2000 }, { 0, 2000 } }, off = { { 0, 0 }, { 0, 0 } };
	int avx = has_avx();
	deadline = now(CLOCK_MONOTONIC) + scaled(500) * MS;
	CHECK(sigaction(SIGALRM, &action, 0) == 0 && setitimer(ITIMER_REAL, &beat, 0) == 0);
	for (uint32_t i = 1; now(CLOCK_MONOTONIC) < deadline || beats < 10; i++) {
		CHECK(hold(avx, 0, i, 100000) == HELD);
		CHECK(!wrong);
	}
	CHECK(setitimer(ITIMER_REAL, &off, 0) == 0);
	return HELD;
}
