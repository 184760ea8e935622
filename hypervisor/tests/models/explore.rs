// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a few threads in every order that has at most so many preemptions.
//!
//! Accesses are sequentially consistent, as those of the code under test are, so an execution is an interleaving of them.
//! A thread yields before each ([`Shared::step`]); which one goes on is the only choice, and choices are tried depth first. A
//! switch away from a thread that could go on is a preemption. Threads that wait for something that never comes are a failure.

use std::cell::RefCell;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a thread of a model does.
pub(crate) type Body = Box<dyn FnOnce() + Send>;
type Condition = Box<dyn Fn() -> bool + Send>;

enum Thread {
    Ready,
    Waits(Condition),
    Over,
}

struct State {
    threads: Vec<Thread>,
    current: usize,
    preemptions: usize,
    /// The choices of this run: which of how many.
    path: Vec<(usize, usize)>,
    at: usize,
    failed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// The threads that play those of the model, to be woken when it is their turn.
    players: Vec<std::thread::Thread>,
}

thread_local! {
    static ME: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

fn me() -> Option<(Arc<Shared>, usize)> {
    ME.with(|me| me.borrow().clone())
}

/// Lets another thread go on, perhaps. To be called before each access to what threads share.
pub(crate) fn step() {
    if let Some((shared, me)) = me() {
        shared.switch(me, Thread::Ready);
    }
}

/// Waits until something is true, which another thread makes so.
pub(crate) fn wait_until(condition: impl Fn() -> bool + Send + 'static) {
    if let Some((shared, me)) = me() {
        shared.switch(me, Thread::Waits(Box::new(condition)));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with whichever thread is chosen, and returns when this one is.
    fn switch(&self, me: usize, becomes: Thread) {
        let mut state = self.lock();
        state.threads[me] = becomes;
        state.choose();
        self.hand_over(state, me);
        self.await_turn(me);
    }

    /// Wakes the thread whose turn it is, or all of them to their end.
    fn hand_over(&self, state: MutexGuard<'_, State>, me: usize) {
        let (next, failed) = (state.current, state.failed);
        drop(state);
        let woken = |(n, player): (usize, &std::thread::Thread)| {
            if n != me && (failed || n == next) {
                player.unpark();
            }
        };
        self.players.iter().enumerate().for_each(woken);
    }

    fn await_turn(&self, me: usize) {
        loop {
            let mut state = self.lock();
            let failed = state.failed;
            if state.current == me || failed {
                state.threads[me] = Thread::Ready;
                drop(state);
                return assert!(!failed, "another thread has failed");
            }
            drop(state);
            std::thread::park();
        }
    }

    fn end(&self, me: usize, failed: bool) {
        let mut state = self.lock();
        state.threads[me] = Thread::Over;
        state.failed |= failed;
        if !state.failed {
            state.choose();
        }
        self.hand_over(state, me);
    }
}

impl State {
    fn choose(&mut self) {
        let can_run = |thread: &Thread| match thread {
            Thread::Ready => true,
            Thread::Waits(condition) => condition(),
            Thread::Over => false,
        };
        let mut able: Vec<usize> = (0..self.threads.len()).filter(|n| can_run(&self.threads[*n])).collect();
        if able.is_empty() {
            self.failed |= !self.threads.iter().all(|thread| matches!(thread, Thread::Over));
            return;
        }
        // The thread that runs first: going on with it is no preemption.
        let goes_on = able.iter().position(|n| *n == self.current);
        if let Some(index) = goes_on {
            able.swap(0, index);
            if self.preemptions == 0 {
                able.truncate(1);
            }
        }
        if self.path.len() == self.at {
            self.path.push((0, able.len()));
        }
        let (choice, options) = self.path[self.at];
        assert_eq!(options, able.len(), "a run is repeatable");
        self.at += 1;
        self.preemptions -= usize::from(goes_on.is_some() && choice != 0);
        self.current = able[choice];
    }
}

/// Runs what `make` makes in every order with at most so many preemptions; `check` looks at what came of each. Returns how many
/// orders there were.
///
/// # Panics
/// When a thread or a check does, or all threads wait.
pub(crate) fn explore<T>(preemptions: usize, make: impl Fn() -> (T, Vec<Body>), check: impl Fn(T)) -> usize {
    let mut path = Vec::new();
    let mut players = Vec::new();
    for runs in 1.. {
        let (what, bodies) = make();
        players.resize_with(bodies.len(), Player::new);
        path = run(&players, bodies, preemptions, path);
        check(what);
        while path.last().is_some_and(|(choice, options)| choice + 1 == *options) {
            path.pop();
        }
        match path.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return runs,
        }
    }
    unreachable!()
}

/// A thread that plays one of the model's, run after run.
struct Player {
    bodies: mpsc::Sender<(Arc<Shared>, usize, Body)>,
    ended: mpsc::Receiver<()>,
    thread: std::thread::Thread,
}

impl Player {
    fn new() -> Self {
        let (bodies, next) = mpsc::channel::<(Arc<Shared>, usize, Body)>();
        let (end, ended) = mpsc::channel();
        let play = move || {
            for (shared, me, body) in next {
                ME.with(|slot| *slot.borrow_mut() = Some((shared.clone(), me)));
                let act = std::panic::AssertUnwindSafe(|| {
                    shared.await_turn(me);
                    body();
                });
                let result = std::panic::catch_unwind(act);
                shared.end(me, result.is_err());
                if end.send(()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::spawn(play).thread().clone();
        Self { bodies, ended, thread }
    }
}

fn run(players: &[Player], bodies: Vec<Body>, preemptions: usize, path: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let threads = bodies.iter().map(|_| Thread::Ready).collect();
    let mut state = State { threads, current: usize::MAX, preemptions, path, at: 0, failed: false };
    state.choose();
    let threads = players.iter().map(|player| player.thread.clone()).collect();
    let shared = Arc::new(Shared { state: Mutex::new(state), players: threads });
    for (n, (player, body)) in players.iter().zip(bodies).enumerate() {
        player.bodies.send((shared.clone(), n, body)).expect("players live as long as the exploration");
    }
    players.iter().for_each(|player| player.ended.recv().expect("each run ends"));
    let state = shared.lock();
    assert!(!state.failed, "a thread has failed, or all wait, after the choices {:?}", state.path);
    state.path.clone()
}
