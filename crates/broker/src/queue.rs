//! A queue that takes one pointer until something is put into it: most queues of most sessions
//! never see anything.

use std::collections::{VecDeque, vec_deque};

/// A queue that grew beyond this many places gives its memory back when it is empty.
const KEEP_CAPACITY: usize = 32;

/// First in, first out.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "an empty one is to be no more than a pointer")]
pub(crate) struct Queue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue(None)
    }
}

impl<T> Queue<T> {
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    pub fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    pub fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    /// The first item, where it is one that may go.
    pub fn pop_front_if(&mut self, may_go: impl FnOnce(&T) -> bool) -> Option<T> {
        self.0.as_mut()?.pop_front_if(|item| may_go(item))
    }

    pub fn iter(&self) -> vec_deque::Iter<'_, T> {
        self.0.as_ref().map_or_else(Default::default, |queue| queue.iter())
    }

    pub fn iter_mut(&mut self) -> vec_deque::IterMut<'_, T> {
        self.0.as_mut().map_or_else(Default::default, |queue| queue.iter_mut())
    }

    pub fn remove(&mut self, at: usize) -> Option<T> {
        let item = self.0.as_mut()?.remove(at);
        if self.is_empty() {
            self.0 = None;
        }
        item
    }

    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if let Some(queue) = &mut self.0 {
            queue.retain(keep);
        }
    }

    /// Takes all of it out.
    pub fn take(&mut self) -> VecDeque<T> {
        self.0.take().map_or_else(VecDeque::new, |queue| *queue)
    }

    /// Moves everything to the end of `to`. Where that is empty the two change places, so that
    /// their memory goes round.
    pub fn move_to(&mut self, to: &mut Self) {
        if self.is_empty() {
            return;
        }
        if to.is_empty() {
            std::mem::swap(self, to);
        } else if let (Some(from), Some(to)) = (&mut self.0, &mut to.0) {
            to.append(from);
        }
        if self.0.as_ref().is_some_and(|queue| queue.capacity() > KEEP_CAPACITY) {
            self.0 = None;
        }
    }
}

impl<T> From<VecDeque<T>> for Queue<T> {
    fn from(items: VecDeque<T>) -> Self {
        Queue((!items.is_empty()).then(|| Box::new(items)))
    }
}

impl<T> Extend<T> for Queue<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            self.0.get_or_insert_default().extend(items);
        }
    }
}

impl<T> FromIterator<T> for Queue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<VecDeque<T>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_costs_a_pointer_and_order_is_kept() {
        assert_eq!(size_of::<Queue<[u8; 100]>>(), size_of::<usize>());
        let (mut from, mut to) = (Queue::default(), Queue::default());
        from.move_to(&mut to);
        assert!(from.0.is_none() && to.0.is_none());
        from.extend([1, 2, 3]);
        assert_eq!(from.pop_front_if(|n| *n == 2), None);
        assert_eq!(from.pop_front(), Some(1));
        from.move_to(&mut to);
        from.push_back(4);
        from.move_to(&mut to);
        assert!(from.is_empty());
        assert_eq!(to.remove(1), Some(3));
        assert_eq!(to.take(), [2, 4]);
        from.extend(0..100);
        from.move_to(&mut to);
        to.take();
        from.push_back(1);
        from.move_to(&mut to);
        to.pop_front();
        to.move_to(&mut from);
        to.extend(0..100);
        while to.pop_front().is_some() {}
        from.push_back(1);
        from.move_to(&mut to);
        assert!(from.0.is_none(), "a large one is given back");
        assert_eq!(to.remove(0), Some(1));
        assert!(to.0.is_none());
    }
}
