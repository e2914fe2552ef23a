//! Passwords: Argon2id, and the one thread that computes it (rule 28).
//!
//! One thread, because each computation takes 19 MiB and a core for some tens of milliseconds:
//! a storm of logins must not take the cores and the memory from those who are connected.

use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;

use crate::secret::random_bytes;

/// Computations that may wait. Full: the login is refused as busy, and the client tries again.
const QUEUE: usize = 64;

/// What a password is kept as, with the parameters that it was made with.
#[derive(Clone)]
pub struct PasswordHash {
    pub salt: [u8; 16],
    pub hash: [u8; 32],
    /// In KiB.
    pub memory: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl PasswordHash {
    /// Hashes a new password. Takes long: see [the module](self).
    pub fn make(password: &[u8]) -> io::Result<PasswordHash> {
        let mut made = PasswordHash {
            salt: random_bytes()?,
            hash: [0; 32],
            memory: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
            lanes: Params::DEFAULT_P_COST,
        };
        made.hash = made.compute(password).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(made)
    }

    /// Whether this is the password. Takes long: see [the module](self).
    pub fn matches(&self, password: &[u8]) -> bool {
        self.compute(password).is_ok_and(|hash| hash.ct_eq(&self.hash).into())
    }

    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    fn compute(&self, password: &[u8]) -> Result<[u8; 32], argon2::Error> {
        let params = Params::new(self.memory, self.passes, self.lanes, Some(32))?;
        let mut hash = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password, &self.salt, &mut hash)?;
        Ok(hash)
    }
}

/// Too much waits to be computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
pub struct PasswordThread {
    jobs: SyncSender<Job>,
}

impl PasswordThread {
    pub fn start() -> io::Result<PasswordThread> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        thread::Builder::new().name("fuota-passwords".into()).spawn(move || {
            for job in queue {
                job();
            }
        })?;
        Ok(PasswordThread { jobs })
    }

    /// Computes on the thread. Work whose caller has given up by then is skipped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let job = Box::new(move || {
            if !answer.is_closed() {
                drop(answer.send(work()));
            }
        });
        self.jobs.try_send(job).map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_itself_alone_and_is_salted() {
        let one = PasswordHash::make(b"correct horse").unwrap();
        let two = PasswordHash::make(b"correct horse").unwrap();
        assert!(one.matches(b"correct horse") && two.matches(b"correct horse"));
        assert!(!one.matches(b"correct horsf") && !one.matches(b""));
        assert_ne!(one.hash, two.hash);
    }

    #[tokio::test]
    async fn rule_28_what_does_not_fit_into_the_queue_is_refused() {
        let thread = PasswordThread::start().unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (started, begun) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(thread.run(move || {
            assert!(started.send(()).is_ok());
            wait.recv().is_ok()
        }));
        assert!(futures_pending(&mut first).await);
        begun.await.unwrap();
        let mut waiting: Vec<_> =
            (0..QUEUE).map(|number| Box::pin(thread.run(move || number))).collect();
        for one in &mut waiting {
            assert!(futures_pending(one).await);
        }
        assert_eq!(thread.run(|| ()).await, Err(Busy));
        release.send(()).unwrap();
        assert_eq!(first.await, Ok(true));
        for (number, one) in waiting.into_iter().enumerate() {
            assert_eq!(one.await, Ok(number));
        }
    }

    /// Polls once; true while the future has no answer.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
