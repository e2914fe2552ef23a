//! Places for answers that last: so many at once for one name, and so many in all, so that whoever
//! takes all that it can get leaves room for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// See [the module](self). Clones count together.
#[derive(Clone)]
pub struct Places {
    each: usize,
    all: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Of each name that has any.
    of: HashMap<String, usize>,
}

/// One place; free again when this is dropped.
pub struct Place {
    places: Places,
    name: String,
}

impl Places {
    /// So many for one name, and so many in all.
    pub fn new(each: usize, all: usize) -> Self {
        Places { each, all, taken: Arc::default() }
    }

    /// How many one name may have.
    pub fn each(&self) -> usize {
        self.each
    }

    /// A place for this name; `None` where it has all of its own, or none is left.
    pub fn take(&self, name: &str) -> Option<Place> {
        let mut taken = self.lock();
        let of = taken.of.get(name).copied().unwrap_or(0);
        if of >= self.each || taken.all >= self.all {
            return None;
        }
        taken.all += 1;
        taken.of.insert(name.to_owned(), of + 1);
        Some(Place { places: self.clone(), name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // What a panic left is whole: nothing in between can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        match taken.of.get_mut(&self.name) {
            Some(of) if *of > 1 => *of -= 1,
            _ => drop(taken.of.remove(&self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_all_together_have_theirs() {
        let places = Places::new(2, 3);
        let first = places.take("a").unwrap();
        let _second = places.take("a").unwrap();
        assert!(places.take("a").is_none(), "it has its share");
        let other = places.take("b").unwrap();
        assert!(places.take("c").is_none(), "none is left");
        drop(first);
        let again = places.take("a").unwrap();
        drop((other, again));
        let taken = places.lock();
        assert_eq!((taken.all, taken.of.len()), (1, 1));
    }
}
