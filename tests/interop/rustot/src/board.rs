//! The clock and the flash of the device.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    time::Instant,
};

use fugit_timer::{Timer, TimerDurationU32, TimerInstantU32};
use rustot::ota::{
    encoding::FileContext,
    pal::{ImageState, OtaPal, OtaPalError, PalImageState, Version},
};
use sha2::{Digest, Sha256};

/// Counts milliseconds.
pub struct Clock {
    started: Instant,
    end: Option<TimerInstantU32<1000>>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { started: Instant::now(), end: None }
    }
}

impl Timer<1000> for Clock {
    type Error = Infallible;

    fn now(&mut self) -> TimerInstantU32<1000> {
        TimerInstantU32::from_ticks(self.started.elapsed().as_millis() as u32)
    }

    fn start(&mut self, duration: TimerDurationU32<1000>) -> Result<(), Infallible> {
        self.end = Some(self.now() + duration);
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Infallible> {
        self.end = None;
        Ok(())
    }

    fn wait(&mut self) -> nb::Result<(), Infallible> {
        let now = self.now();
        match self.end.take_if(|end| *end <= now) {
            Some(_) => Ok(()),
            None => Err(nb::Error::WouldBlock),
        }
    }
}

/// The slot for the new image, and which image runs.
pub struct Flash {
    version: Version,
    state: PalImageState,
    slot: RefCell<Vec<u8>>,
    done: Cell<bool>,
}

impl Flash {
    /// With an image that is known to be good.
    pub fn running(version: Version) -> Flash {
        let (slot, done) = Default::default();
        Flash { version, state: PalImageState::Valid, slot, done }
    }

    /// With an image that runs for the first time.
    pub fn on_trial(version: Version) -> Flash {
        Flash { state: PalImageState::PendingCommit, ..Flash::running(version) }
    }

    /// The device is to restart, or its image was accepted.
    pub fn is_done(&self) -> bool {
        self.done.get()
    }
}

impl OtaPal for &Flash {
    type Error = ();

    fn abort(&mut self, _file: &FileContext) -> Result<(), OtaPalError<()>> {
        Ok(())
    }

    fn create_file_for_rx(&mut self, file: &FileContext) -> Result<(), OtaPalError<()>> {
        *self.slot.borrow_mut() = vec![0; file.filesize];
        Ok(())
    }

    fn get_platform_image_state(&mut self) -> Result<PalImageState, OtaPalError<()>> {
        Ok(self.state)
    }

    fn set_platform_image_state(&mut self, state: ImageState<()>) -> Result<(), OtaPalError<()>> {
        if let ImageState::Aborted(_) | ImageState::Rejected(_) = state {
            println!("the agent gave up");
        }
        self.done.set(matches!(state, ImageState::Accepted));
        Ok(())
    }

    fn reset_device(&mut self) -> Result<(), OtaPalError<()>> {
        self.done.set(true);
        Ok(())
    }

    fn close_file(&mut self, _file: &FileContext) -> Result<(), OtaPalError<()>> {
        let digest = Sha256::digest(&*self.slot.borrow());
        println!("complete {digest:x}");
        Ok(())
    }

    fn write_block(
        &mut self,
        file: &FileContext,
        offset: usize,
        block: &[u8],
    ) -> Result<usize, OtaPalError<()>> {
        let mut slot = self.slot.borrow_mut();
        let place = slot.get_mut(offset..offset + block.len()).ok_or(OtaPalError::FileTooLarge)?;
        place.copy_from_slice(block);
        println!("block, {} more", file.blocks_remaining - 1);
        Ok(block.len())
    }

    fn get_active_firmware_version(&self) -> Result<Version, OtaPalError<()>> {
        Ok(self.version.clone())
    }
}
