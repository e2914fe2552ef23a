//! The one thread that computes passwords (rule 28).
//!
//! One thread, because each computation takes 19 MiB and a core for some tens of milliseconds:
//! a storm of logins must not take the cores and the memory from those who are connected.

use std::{collections::VecDeque, io, sync::Arc, thread};

use parking_lot::{Condvar, Mutex};

/// Logins that may wait. Full: the login is refused as busy, and the client tries again.
const QUEUE: usize = 64;
/// What may wait for a moment without logins. Full: it is not done, the next login asks again.
const LATER: usize = 1024;

/// Too much waits to be computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
pub struct PasswordThread(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    changed: Condvar,
}

#[derive(Default)]
struct Queues {
    logins: VecDeque<Job>,
    later: VecDeque<Job>,
    closed: bool,
}

impl PasswordThread {
    pub fn start() -> io::Result<PasswordThread> {
        let shared = Arc::<Shared>::default();
        let queues = Arc::clone(&shared);
        thread::Builder::new().name("fuota-passwords".into()).spawn(move || {
            while let Some(job) = queues.next() {
                job();
            }
        })?;
        Ok(PasswordThread(shared))
    }

    /// Computes on the thread. Work whose caller has given up by then is skipped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        self.queue(work, |queues| (&mut queues.logins, QUEUE)).await
    }

    /// The same, when no login waits.
    pub async fn run_later<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        self.queue(work, |queues| (&mut queues.later, LATER)).await
    }

    async fn queue<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        which: impl FnOnce(&mut Queues) -> (&mut VecDeque<Job>, usize),
    ) -> Result<T, Busy> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let job = Box::new(move || {
            if !answer.is_closed() {
                drop(answer.send(work()));
            }
        });
        {
            let mut queues = self.0.queues.lock();
            let (queue, limit) = which(&mut queues);
            if queue.len() >= limit {
                return Err(Busy);
            }
            queue.push_back(job);
        }
        self.0.changed.notify_one();
        answered.await.map_err(|_| Busy)
    }
}

impl Drop for PasswordThread {
    fn drop(&mut self) {
        self.0.queues.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    /// Waits for the next job; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut queues = self.queues.lock();
        loop {
            if queues.closed {
                return None;
            }
            if let Some(job) = queues.logins.pop_front() {
                return Some(job);
            }
            if let Some(job) = queues.later.pop_front() {
                return Some(job);
            }
            self.changed.wait(&mut queues);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rule_28_what_does_not_fit_into_the_queue_is_refused_and_logins_go_first() {
        let thread = PasswordThread::start().unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (started, begun) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(thread.run(move || {
            assert!(started.send(()).is_ok());
            wait.recv().is_ok()
        }));
        assert!(is_pending(&mut first).await);
        begun.await.unwrap();
        let order = Arc::<Mutex<Vec<usize>>>::default();
        let note = |number| {
            let order = Arc::clone(&order);
            move || order.lock().push(number)
        };
        let mut later: Vec<_> =
            (0..LATER).map(|number| Box::pin(thread.run_later(note(QUEUE + number)))).collect();
        let mut logins: Vec<_> =
            (0..QUEUE).map(|number| Box::pin(thread.run(note(number)))).collect();
        for one in &mut later {
            assert!(is_pending(one).await);
        }
        for one in &mut logins {
            assert!(is_pending(one).await);
        }
        assert_eq!(thread.run(|| ()).await, Err(Busy));
        assert_eq!(thread.run_later(|| ()).await, Err(Busy));
        release.send(()).unwrap();
        assert_eq!(first.await, Ok(true));
        for one in logins {
            assert_eq!(one.await, Ok(()));
        }
        for one in later {
            assert_eq!(one.await, Ok(()));
        }
        assert!(order.lock().iter().copied().eq(0..QUEUE + LATER), "{:?}", order.lock());
    }

    /// Polls once; true while the future has no answer.
    async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
