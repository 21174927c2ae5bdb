//! The virtual environment: seeded randomness, a clock advanced by hand, timers that fire in order.
//!
//! What always holds: two runs from one seed that do the same things see the same bytes and the
//! same times. Nothing advances by itself. Timers fire by deadline, those of one deadline in the
//! order in which they were first polled.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{Clock, Entropy, Env, Sleep, Timers, Timestamp};

/// 2026-01-01T00:00:00Z, where every virtual run begins.
const BEGINNING: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A whole environment for one thread of time. Cloning shares it.
#[derive(Clone)]
pub struct VirtualEnv {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    monotonic: Duration,
    /// Wall time at monotonic zero. It moves only when the clock is skewed on purpose.
    wall_at_zero: Timestamp,
    random: ChaCha12Rng,
    next_timer: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
}

impl VirtualEnv {
    pub fn seeded(seed: u64) -> Self {
        let state = State {
            monotonic: Duration::ZERO,
            wall_at_zero: BEGINNING,
            random: ChaCha12Rng::seed_from_u64(seed),
            next_timer: 0,
            timers: BTreeMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
            }),
        }
    }

    pub fn env(&self) -> Env {
        Env {
            clock: self.shared.clone(),
            entropy: self.shared.clone(),
            timers: Arc::new(self.shared.clone()),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    pub fn monotonic(&self) -> Duration {
        self.shared.monotonic()
    }

    /// The deadline of the timer that fires next.
    pub fn next_timer(&self) -> Option<Duration> {
        let state = self.shared.lock();
        state.timers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Advances to the next timer's deadline and wakes what waits for it; false if nothing waits.
    /// This is the step to use where what is woken must see the time it was woken at.
    pub fn advance_to_next_timer(&self) -> bool {
        match self.next_timer() {
            Some(deadline) => {
                self.advance_to(deadline);
                true
            }
            None => false,
        }
    }

    /// Advances by `duration`, waking in order everything that is due by then. What is woken is
    /// polled by the caller afterwards, and sees the new time.
    pub fn advance(&self, duration: Duration) {
        let target = self.shared.monotonic() + duration;
        self.advance_to(target);
    }

    /// Makes the wall clock jump; the monotonic clock does not notice.
    pub fn set_wall_clock(&self, now: Timestamp) {
        let mut state = self.shared.lock();
        state.wall_at_zero = now - state.monotonic;
    }

    /// Drives `future` to its end on this thread, advancing the clock whenever it waits for a
    /// timer. Returns `None` when it waits for something that no timer will ever bring.
    pub fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            while !woken.take() {
                if !self.advance_to_next_timer() {
                    return None;
                }
            }
        }
    }

    fn advance_to(&self, target: Duration) {
        loop {
            let waker = {
                let mut state = self.shared.lock();
                match state.timers.first_entry() {
                    Some(first) if first.key().0 <= target => {
                        let ((deadline, _), waker) = first.remove_entry();
                        state.monotonic = state.monotonic.max(deadline);
                        waker
                    }
                    _ => {
                        state.monotonic = state.monotonic.max(target);
                        return;
                    }
                }
            };
            // The lock is released first: a waker may run code that asks for the time.
            waker.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Shared {
    fn now(&self) -> Timestamp {
        let state = self.lock();
        state.wall_at_zero + state.monotonic
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }
}

impl Entropy for Shared {
    fn fill(&self, bytes: &mut [u8]) {
        self.lock().random.fill_bytes(bytes);
    }
}

/// `Timers` has only `&self`, and a sleep outlives it, so a sleep reaches the state through a
/// handle of its own.
impl Timers for Arc<Shared> {
    fn sleep_until_monotonic(&self, deadline: Duration) -> Sleep {
        Box::pin(VirtualSleep {
            shared: self.clone(),
            deadline,
            registered: None,
        })
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let deadline = self.monotonic().saturating_add(duration);
        self.sleep_until_monotonic(deadline)
    }
}

struct VirtualSleep {
    shared: Arc<Shared>,
    deadline: Duration,
    registered: Option<u64>,
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        if state.monotonic >= self.deadline {
            if let Some(number) = self.registered.take() {
                state.timers.remove(&(self.deadline, number));
            }
            return Poll::Ready(());
        }
        let number = *self.registered.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        let waker = context.waker().clone();
        state.timers.insert((self.deadline, number), waker);
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        if let Some(number) = self.registered {
            self.shared.lock().timers.remove(&(self.deadline, number));
        }
    }
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_of_bytes() {
        let draw = |seed| {
            let env = VirtualEnv::seeded(seed).env();
            (env.entropy.bytes16(), env.entropy.u64())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn time_stands_still_until_it_is_advanced() {
        let world = VirtualEnv::seeded(1);
        let env = world.env();
        assert_eq!(env.now(), BEGINNING);
        world.advance(Duration::from_secs(3600));
        assert_eq!(env.now() - BEGINNING, Duration::from_secs(3600));
        world.set_wall_clock(BEGINNING);
        assert_eq!(env.now(), BEGINNING);
        assert_eq!(env.monotonic(), Duration::from_secs(3600));
    }

    #[test]
    fn a_future_is_driven_through_its_waits() {
        let world = VirtualEnv::seeded(1);
        let env = world.env();
        let slept = world.block_on(async {
            env.sleep(Duration::from_secs(5)).await;
            env.sleep(Duration::from_secs(7)).await;
            env.now() - BEGINNING
        });
        assert_eq!(slept, Some(Duration::from_secs(12)));
        assert_eq!(world.block_on(std::future::pending::<()>()), None);
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let world = VirtualEnv::seeded(1);
        let env = world.env();
        let fired = Mutex::new(Vec::new());
        let wait = |seconds: u64| {
            let sleep = env.sleep(Duration::from_secs(seconds));
            let fired = &fired;
            async move {
                sleep.await;
                fired.lock().unwrap().push(seconds);
            }
        };
        let (mut a, mut b, mut c) = (Box::pin(wait(3)), Box::pin(wait(1)), Box::pin(wait(2)));
        let mut context = Context::from_waker(Waker::noop());
        while fired.lock().unwrap().len() < 3 {
            // A finished future is not polled again.
            let done = fired.lock().unwrap().clone();
            for (seconds, future) in [(3, &mut a), (1, &mut b), (2, &mut c)] {
                if !done.contains(&seconds) {
                    let _ = future.as_mut().poll(&mut context);
                }
            }
            world.advance_to_next_timer();
        }
        assert_eq!(*fired.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_dropped_sleep_gives_its_timer_up() {
        let world = VirtualEnv::seeded(1);
        let env = world.env();
        let mut sleep = env.sleep(Duration::from_secs(1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        assert_eq!(world.next_timer(), Some(Duration::from_secs(1)));
        drop(sleep);
        assert_eq!(world.next_timer(), None);
    }
}
