//! Putting fragments of a message together (RFC 7383 §2.6), within bounds.

/// The fragments of one message that are there.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// Message id, so that those of another message replace them.
    pub(crate) id: u32,
    /// Type of the first payload, of fragment 1.
    first: u8,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    /// Bytes that are held.
    pub(crate) bytes: usize,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// All are there: type of the first payload, and the chain.
    Whole(u8, Vec<u8>),
    /// Others are missing.
    More,
    /// It is one that is there, or does not fit to the others, or they are too much.
    Refused,
}

impl Fragments {
    /// Nothing yet of a message of `all` fragments.
    pub(crate) fn new(id: u32, all: u16) -> Self {
        Self { id, first: 0, parts: vec![None; all.into()], missing: all.into(), bytes: 0 }
    }

    /// How many there are of the message.
    pub(crate) fn all(&self) -> usize {
        self.parts.len()
    }

    /// Adds one, which is authentic; numbers are counted from 1.
    pub(crate) fn add(&mut self, number: u16, first: u8, part: Vec<u8>, most: usize) -> Joined {
        let Some(place) = usize::from(number).checked_sub(1).and_then(|at| self.parts.get_mut(at)) else {
            return Joined::Refused;
        };
        if place.is_some() || self.bytes + part.len() > most {
            return Joined::Refused;
        }
        if number == 1 {
            self.first = first;
        }
        self.bytes += part.len();
        *place = Some(part);
        self.missing -= 1;
        if self.missing > 0 {
            return Joined::More;
        }
        let mut chain = Vec::with_capacity(self.bytes);
        self.parts.iter().flatten().for_each(|part| chain.extend_from_slice(part));
        Joined::Whole(self.first, chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_joined_in_any_order_once_each() {
        let mut fragments = Fragments::new(3, 3);
        assert_eq!(fragments.add(3, 0, vec![5, 6], 100), Joined::More);
        assert_eq!(fragments.add(3, 0, vec![5, 6], 100), Joined::Refused);
        assert_eq!(fragments.add(4, 0, vec![9], 100), Joined::Refused);
        assert_eq!(fragments.add(0, 0, vec![9], 100), Joined::Refused);
        assert_eq!(fragments.add(1, 35, vec![1, 2], 100), Joined::More);
        assert_eq!(fragments.add(2, 0, vec![3, 4], 100), Joined::Whole(35, vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn fragments_are_bounded() {
        let mut fragments = Fragments::new(3, 3);
        assert_eq!(fragments.add(1, 35, vec![0; 60], 100), Joined::More);
        assert_eq!(fragments.add(2, 0, vec![0; 41], 100), Joined::Refused);
        assert_eq!(fragments.bytes, 60);
    }
}
