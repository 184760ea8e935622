// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Threads that share: locks, atomics, futexes, conditions, thread-local storage, and locks whose owner died.

#include "workload.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { THREADS = 8 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static int rounds;
static long counter;
static _Atomic uint64_t shared_counter;
static _Thread_local long own;

static int run_threads(void *(*body)(void *))
{
	pthread_t thread[THREADS];
	CHECK(pthread_barrier_init(&barrier, 0, THREADS) == 0);
	for (intptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], 0, body, (void *)(i + 1)) == 0);
	for (int i = 0; i < THREADS; i++) {
		void *fine;
		CHECK(pthread_join(thread[i], &fine) == 0);
		CHECK(fine);
	}
	return HELD;
}

static void *locking(void *argument)
{
	long number = (long)(intptr_t)argument;
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < rounds; i++) {
		pthread_mutex_lock(&mutex);
		long seen = counter;
		if (i % 64 == 0)
			sched_yield();
		counter = seen + 1;
		pthread_mutex_unlock(&mutex);
		own += number;
	}
	return (void *)(intptr_t)(own == rounds * number);
}

// A counter under a lock that is often held across a yield, and one in thread-local storage.
int part_mutex(void)
{
	rounds = scaled(2000);
	CHECK(run_threads(locking) == HELD);
	CHECK(counter == THREADS * rounds);
	return HELD;
}

static void *adding(void *argument)
{
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < rounds; i++) {
		uint64_t seen = atomic_load(&shared_counter);
		while (!atomic_compare_exchange_weak(&shared_counter, &seen, seen + 1))
			;
		atomic_fetch_add(&shared_counter, (uint64_t)1 << 32);
	}
	return argument;
}

// Compare-and-exchange (in 32 bits with cmpxchg8b) and add on one word, from all threads.
int part_atomic(void)
{
	rounds = scaled(20000);
	CHECK(run_threads(adding) == HELD);
	CHECK(atomic_load(&shared_counter) == (uint64_t)THREADS * rounds * ((1ULL << 32) + 1));
	return HELD;
}

static long futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *limit)
{
	return syscall(SYS_futex, word, operation, value, limit, 0, 0);
}

static int ping_pong(void *argument)
{
	_Atomic uint32_t *word = argument;
	for (int i = 0; i < rounds; i++) {
		uint32_t seen, wanted = 2 * (uint32_t)i + 1;
		while ((seen = atomic_load(word)) != wanted)
			CHECK(futex(word, FUTEX_WAIT, seen, 0) == 0 || errno == EAGAIN || errno == EINTR);
		atomic_fetch_add(word, 1);
		futex(word, FUTEX_WAKE, 1, 0);
	}
	return HELD;
}

// Two processes hand a word to and fro by futexes in shared memory; a wait has its time limit.
int part_futex(void)
{
	_Atomic uint32_t *word = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct timespec limit = { .tv_nsec = 30 * MS };
	CHECK(word != MAP_FAILED);
	rounds = scaled(1000);
	pid_t child = start(ping_pong, word);
	for (int i = 0; i < rounds; i++) {
		uint32_t seen, wanted = 2 * (uint32_t)i + 2;
		atomic_fetch_add(word, 1);
		futex(word, FUTEX_WAKE, 1, 0);
		while ((seen = atomic_load(word)) != wanted)
			CHECK(futex(word, FUTEX_WAIT, seen, 0) == 0 || errno == EAGAIN);
	}
	CHECK(held(child) == HELD);
	int64_t before = now(CLOCK_MONOTONIC);
	CHECK(futex(word, FUTEX_WAIT, 2 * (uint32_t)rounds, &limit) < 0 && errno == ETIMEDOUT);
	CHECK(now(CLOCK_MONOTONIC) - before >= 30 * MS);
	return HELD;
}

static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static long slots[16];
static unsigned head, tail;

static void put(long value)
{
	pthread_mutex_lock(&mutex);
	while (head - tail == COUNT(slots))
		pthread_cond_wait(&emptied, &mutex);
	slots[head++ % COUNT(slots)] = value;
	pthread_cond_signal(&filled);
	pthread_mutex_unlock(&mutex);
}

static long take(void)
{
	pthread_mutex_lock(&mutex);
	while (head == tail)
		pthread_cond_wait(&filled, &mutex);
	long value = slots[tail++ % COUNT(slots)];
	pthread_cond_signal(&emptied);
	pthread_mutex_unlock(&mutex);
	return value;
}

static void *trading(void *argument)
{
	long number = (long)(intptr_t)argument;
	pthread_barrier_wait(&barrier);
	for (long i = 1; i <= rounds; i++) {
		if (number % 2)
			put(i);
		else
			atomic_fetch_add(&shared_counter, (uint64_t)take());
	}
	return argument;
}

// Half of the threads put numbers into a short queue, half take them out: all arrive once.
int part_condition(void)
{
	rounds = scaled(800);
	CHECK(run_threads(trading) == HELD);
	CHECK(atomic_load(&shared_counter) == (uint64_t)(THREADS / 2) * rounds * (rounds + 1) / 2);
	return HELD;
}

static void *brief(void *argument)
{
	long before = own;
	char stack[8 * PAGE];
	own = (long)(intptr_t)argument;
	memset(stack, (int)own, sizeof stack);
	sched_yield();
	__asm__ volatile("" : : "r"(stack) : "memory");
	for (size_t i = 0; i < sizeof stack; i += 511)
		if (stack[i] != (char)own)
			return 0;
	return (void *)(intptr_t)(before == 0 && own == (long)(intptr_t)argument);
}

// Threads that live for a moment only, with fresh thread-local storage and stacks of their own.
int part_churn(void)
{
	int times = scaled(20);
	for (int i = 0; i < times; i++)
		CHECK(run_threads(brief) == HELD);
	return HELD;
}

static int dies_owning(void *argument)
{
	CHECK(pthread_mutex_lock(argument) == 0);
	return HELD;
}

// A lock whose owner exits is handed on with a word about it.
int part_robust(void)
{
	pthread_mutex_t *lock = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t kind;
	CHECK(lock != MAP_FAILED && pthread_mutexattr_init(&kind) == 0);
	CHECK(pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST) == 0);
	CHECK(pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED) == 0);
	CHECK(pthread_mutex_init(lock, &kind) == 0);
	int times = scaled(50);
	for (int i = 0; i < times; i++) {
		CHECK(held(start(dies_owning, lock)) == HELD);
		CHECK(pthread_mutex_lock(lock) == EOWNERDEAD);
		CHECK(pthread_mutex_consistent(lock) == 0 && pthread_mutex_unlock(lock) == 0);
	}
	return HELD;
}
