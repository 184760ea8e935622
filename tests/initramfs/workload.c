// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A userland workload that verifies its own results: what a kernel's memory management, traps, context switches and
// timers have to get right, asked from outside. Built for 64 and for 32 bits. Prints "ok NAME" or "not ok NAME: why"
// for each part; exit status 0 when all held.

#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 512
#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition)) {                                                                                   \
			snprintf(why, sizeof why, "%s (line %d, errno %d)", #condition, __LINE__, errno);             \
			return -1;                                                                                    \
		}                                                                                                     \
	} while (0)

static char why[200];
static const char *self;

static uint32_t next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static void fill(unsigned char *memory, size_t length, uint32_t seed)
{
	for (size_t i = 0; i < length; i += sizeof(uint32_t)) {
		uint32_t value = next(&seed);
		memcpy(memory + i, &value, sizeof value);
	}
}

static int holds(const unsigned char *memory, size_t length, uint32_t seed)
{
	for (size_t i = 0; i < length; i += sizeof(uint32_t)) {
		uint32_t value = next(&seed);
		if (memcmp(memory + i, &value, sizeof value))
			return 0;
	}
	return 1;
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// A thousand fork and exec of this program, each answering with the number it was given.
static int fork_exec(void)
{
	for (int i = 0; i < 1000; i++) {
		char number[16];
		int status;
		snprintf(number, sizeof number, "%d", i % 200);
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			execl(self, self, "--exit", number, (char *)0);
			_exit(255);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i % 200);
	}
	return 0;
}

// Children write to copies of their parent's pages; neither side may see the other's.
static int copy_on_write(void)
{
	size_t length = PAGES * PAGE;
	unsigned char *memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	fill(memory, length, 1);
	for (uint32_t round = 2; round < 18; round++) {
		int status;
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			if (!holds(memory, length, 1))
				_exit(1);
			fill(memory, length, round);
			_exit(holds(memory, length, round) ? 0 : 2);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		CHECK(holds(memory, length, 1));
	}
	CHECK(munmap(memory, length) == 0);
	return 0;
}

static sigjmp_buf fault_return;
static volatile uintptr_t fault_address;
static volatile int fault_signal;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = number;
	fault_address = (uintptr_t)info->si_addr;
	siglongjmp(fault_return, 1);
}

static int catch_faults(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	return sigaction(SIGSEGV, &action, 0) || sigaction(SIGFPE, &action, 0) || sigaction(SIGILL, &action, 0);
}

// mmap, mprotect, mremap and munmap: contents stay, and every forbidden access faults at its own address.
static int protection(void)
{
	size_t length = 64 * PAGE;
	CHECK(catch_faults() == 0);
	for (uint32_t round = 1; round < 65; round++) {
		unsigned char *memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(memory != MAP_FAILED);
		fill(memory, length, round);
		size_t victim = (round % 64) * PAGE;
		CHECK(mprotect(memory + victim, PAGE, PROT_READ) == 0);
		if (sigsetjmp(fault_return, 1) == 0) {
			*(volatile unsigned char *)(memory + victim + 5) = 1;
			CHECK(!"a write to a read-only page went through");
		}
		CHECK(fault_signal == SIGSEGV && fault_address == (uintptr_t)memory + victim + 5);
		CHECK(mprotect(memory + victim, PAGE, PROT_NONE) == 0);
		if (sigsetjmp(fault_return, 1) == 0) {
			(void)*(volatile unsigned char *)(memory + victim);
			CHECK(!"a read of a PROT_NONE page went through");
		}
		CHECK(fault_address == (uintptr_t)memory + victim);
		CHECK(mprotect(memory, length, PROT_READ | PROT_WRITE) == 0);
		CHECK(holds(memory, length, round));
		unsigned char *moved = mremap(memory, length, length * 2, MREMAP_MAYMOVE);
		CHECK(moved != MAP_FAILED && holds(moved, length, round));
		CHECK(moved[length] == 0 && moved[2 * length - 1] == 0);
		CHECK(munmap(moved, length * 2) == 0);
	}
	return 0;
}

// Exceptions other than page faults reach their handlers.
static int exceptions(void)
{
	CHECK(catch_faults() == 0);
	if (sigsetjmp(fault_return, 1) == 0) {
		unsigned low = 1, high = 0;
		__asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "r"(0));
		CHECK(!"a division by zero went through");
	}
	CHECK(fault_signal == SIGFPE);
	if (sigsetjmp(fault_return, 1) == 0) {
		__asm__ volatile("ud2");
	}
	CHECK(fault_signal == SIGILL);
	if (sigsetjmp(fault_return, 1) == 0) {
		__asm__ volatile("hlt");
		CHECK(!"a privileged instruction went through");
	}
	CHECK(fault_signal == SIGSEGV);
	return 0;
}

#define THREADS 8
#define ROUNDS 2000
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static long counter;
static __thread long own;

static void *contend(void *argument)
{
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
		own += (long)(intptr_t)argument;
		if (i % 64 == 0)
			sched_yield();
	}
	return (void *)(intptr_t)(own == ROUNDS * (long)(intptr_t)argument);
}

// Threads that share a counter under a lock and keep one of their own in thread-local storage.
static int threads(void)
{
	pthread_t thread[THREADS];
	CHECK(pthread_barrier_init(&barrier, 0, THREADS) == 0);
	for (intptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], 0, contend, (void *)(i + 1)) == 0);
	for (int i = 0; i < THREADS; i++) {
		void *held;
		CHECK(pthread_join(thread[i], &held) == 0 && held);
	}
	CHECK(counter == THREADS * ROUNDS);
	return 0;
}

static volatile sig_atomic_t received;
static void on_signal(int number) { received += number == SIGUSR1; }

// Signals to self on an alternate stack, and a storm of them between two processes.
static int signals(void)
{
	static char stack[64 * 1024];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	CHECK(sigaltstack(&alternate, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
	for (int i = 0; i < 5000; i++)
		raise(SIGUSR1);
	CHECK(received == 5000);
	pid_t parent = getpid();
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		for (int i = 0; i < 500; i++)
			kill(parent, SIGUSR1);
		_exit(0);
	}
	int status, result;
	while ((result = waitpid(child, &status, 0)) < 0 && errno == EINTR)
		;
	CHECK(result == child && status == 0 && received > 5000);
	return 0;
}

// Vector registers of several processes, each with its own pattern, across many context switches.
__attribute__((target("avx2"))) static int spin_avx(uint32_t seed)
{
	int64_t end = now_ns(CLOCK_MONOTONIC) + 400000000;
	do {
		__m256i a = _mm256_set1_epi32((int)seed), b = _mm256_add_epi32(a, a), c = _mm256_xor_si256(a, b), d = c;
		for (int i = 0; i < 20; i++) {
			__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
			syscall(SYS_sched_yield);
			__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
		}
		uint32_t out[4][8];
		_mm256_storeu_si256((__m256i *)out[0], a);
		_mm256_storeu_si256((__m256i *)out[1], b);
		_mm256_storeu_si256((__m256i *)out[2], c);
		_mm256_storeu_si256((__m256i *)out[3], d);
		for (int lane = 0; lane < 8; lane++)
			if (out[0][lane] != seed || out[1][lane] != seed + seed || out[2][lane] != (seed ^ (seed + seed)) ||
			    out[3][lane] != out[2][lane])
				return 1;
	} while (now_ns(CLOCK_MONOTONIC) < end);
	return 0;
}

static int spin_x87(uint32_t seed)
{
	int64_t end = now_ns(CLOCK_MONOTONIC) + 400000000;
	do {
		long double value = seed;
		for (int i = 0; i < 20; i++) {
			__asm__ volatile("" : "+t"(value));
			syscall(SYS_sched_yield);
			__asm__ volatile("" : "+t"(value));
		}
		if (value != (long double)seed)
			return 1;
	} while (now_ns(CLOCK_MONOTONIC) < end);
	return 0;
}

static int vector_state(void)
{
	int avx = __builtin_cpu_supports("avx2");
	pid_t child[6];
	for (uint32_t i = 0; i < 6; i++) {
		child[i] = fork();
		CHECK(child[i] >= 0);
		if (child[i] == 0) {
			uint32_t seed = 0x01010101u * (i + 1);
			_exit(i < 4 && avx ? spin_avx(seed) : spin_x87(seed));
		}
	}
	for (int i = 0; i < 6; i++) {
		int status;
		CHECK(waitpid(child[i], &status, 0) == child[i]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return 0;
}

static volatile sig_atomic_t ticks;
static void on_tick(int number) { ticks += number == SIGALRM; }

// Sleeps last as long as asked, clocks never run backwards, interval timers tick.
static int timers(void)
{
	for (int i = 0; i < 20; i++) {
		struct timespec pause = { .tv_nsec = 1000000 * (i + 1) };
		int64_t before = now_ns(CLOCK_MONOTONIC);
		CHECK(nanosleep(&pause, 0) == 0);
		int64_t slept = now_ns(CLOCK_MONOTONIC) - before;
		CHECK(slept >= pause.tv_nsec);
		CHECK(slept < pause.tv_nsec + 2000000000LL);
	}
	int64_t last = now_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < 20000; i++) {
		int64_t time = now_ns(CLOCK_MONOTONIC);
		CHECK(time >= last);
		last = time;
	}
	struct itimerval interval = { { 0, 10000 }, { 0, 10000 } }, off = { { 0, 0 }, { 0, 0 } };
	signal(SIGALRM, on_tick);
	CHECK(setitimer(ITIMER_REAL, &interval, 0) == 0);
	int64_t end = now_ns(CLOCK_MONOTONIC) + 10000000000LL;
	while (ticks < 20 && now_ns(CLOCK_MONOTONIC) < end)
		pause();
	setitimer(ITIMER_REAL, &off, 0);
	CHECK(ticks >= 20);
	return 0;
}

// poll over many pipes: time-outs, and exactly the pipe that was written becomes readable.
static int polling(void)
{
	enum { PIPES = 32 };
	int ends[PIPES][2];
	struct pollfd wait[PIPES];
	for (int i = 0; i < PIPES; i++) {
		CHECK(pipe(ends[i]) == 0);
		wait[i] = (struct pollfd){ .fd = ends[i][0], .events = POLLIN };
	}
	int64_t before = now_ns(CLOCK_MONOTONIC);
	CHECK(poll(wait, PIPES, 50) == 0);
	CHECK(now_ns(CLOCK_MONOTONIC) - before >= 49000000);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		for (int i = 0; i < 500; i++) {
			unsigned char byte = (unsigned char)i;
			if (write(ends[i % PIPES][1], &byte, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	int seen[PIPES] = { 0 };
	for (int left = 500; left > 0;) {
		CHECK(poll(wait, PIPES, 20000) > 0);
		for (int i = 0; i < PIPES; i++) {
			unsigned char byte;
			if (!(wait[i].revents & POLLIN))
				continue;
			CHECK(read(ends[i][0], &byte, 1) == 1);
			CHECK(byte == (unsigned char)(i + PIPES * seen[i]));
			seen[i]++;
			left--;
		}
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} parts[] = {
		{ "exceptions", exceptions },	{ "protection", protection }, { "copy-on-write", copy_on_write },
		{ "threads", threads },		{ "signals", signals },	      { "vector-state", vector_state },
		{ "timers", timers },		{ "polling", polling },	      { "fork-exec", fork_exec },
	};
	int failed = 0;
	if (argc == 3 && !strcmp(argv[1], "--exit"))
		return atoi(argv[2]);
	self = argv[0];
	setvbuf(stdout, 0, _IOLBF, 0);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		int64_t before = now_ns(CLOCK_MONOTONIC);
		if (parts[i].run() == 0) {
			int64_t took = (now_ns(CLOCK_MONOTONIC) - before) / 1000000;
			printf("ok %s-%zu (%d ms)\n", parts[i].name, 8 * sizeof(long), (int)took);
		} else {
			printf("not ok %s-%zu: %s\n", parts[i].name, 8 * sizeof(long), why);
			failed = 1;
		}
	}
	return failed;
}
