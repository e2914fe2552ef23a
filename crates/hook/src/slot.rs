//! A hook's private state on one connection.

use std::any::Any;

/// Holds what one hook keeps for one connection; empty, it costs two words.
///
/// The broker owns it, passes it to the hook at every phase and drops it with the connection,
/// so that a message on the hook's hot path meets no map and no lock that others use.
#[derive(Default)]
pub struct Slot(Option<Box<dyn Any + Send>>);

impl Slot {
    /// The state, if it has been set and is a `T`.
    pub fn get_mut<T: Any + Send>(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.downcast_mut()
    }

    /// Sets the state, dropping what was there.
    pub fn set<T: Any + Send>(&mut self, state: T) {
        self.0 = Some(Box::new(state));
    }

    /// Takes the state out, if it is a `T`; what is something else stays.
    pub fn take<T: Any + Send>(&mut self) -> Option<Box<T>> {
        match self.0.take()?.downcast() {
            Ok(state) => Some(state),
            Err(other) => {
                self.0 = Some(other);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_value_of_its_type() {
        let mut slot = Slot::default();
        assert!(slot.get_mut::<u32>().is_none());
        slot.set(7u32);
        *slot.get_mut::<u32>().expect("set above") += 1;
        assert!(slot.take::<String>().is_none(), "another type is not there");
        assert_eq!(slot.take::<u32>().as_deref(), Some(&8), "and asking for it lost nothing");
        assert!(slot.take::<u32>().is_none());
    }
}
