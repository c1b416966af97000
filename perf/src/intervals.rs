//! The oracle of look-ups: routes as the intervals of addresses that lead to the same place. Slow, small, and built in another
//! way than any of the tables.

use crate::mix::Route;
use crate::width::Width;

/// From each of these addresses on, up to the next one, addresses lead to the word beside it; 0: nowhere.
#[derive(Debug)]
pub(crate) struct Intervals<A> {
    from: Vec<A>,
    words: Vec<u32>,
}

impl<A> Default for Intervals<A> {
    /// No address leads anywhere.
    fn default() -> Self {
        Self { from: Vec::new(), words: Vec::new() }
    }
}

impl<A: Width> Intervals<A> {
    /// Those of some routes, in any order, each prefix once.
    pub(crate) fn of<'a>(routes: impl IntoIterator<Item = &'a Route<A>>) -> Self {
        let mut routes: Vec<&Route<A>> = routes.into_iter().collect();
        routes.sort_unstable_by_key(|route| (route.first, route.len));
        let mut intervals = Self::default();
        // The routes that hold the address that the sweep is at, from short to long.
        let mut open: Vec<&Route<A>> = Vec::new();
        for route in routes {
            while open.last().is_some_and(|last| last.last() < route.first) {
                intervals.close(&mut open);
            }
            intervals.begin(route.first, route.word);
            open.push(route);
        }
        while !open.is_empty() {
            intervals.close(&mut open);
        }
        intervals
    }

    /// Behind the longest open route the next shorter one counts again.
    fn close(&mut self, open: &mut Vec<&Route<A>>) {
        let ended = open.pop().and_then(|route| route.last().next());
        if let Some(from) = ended {
            self.begin(from, open.last().map_or(0, |route| route.word));
        }
    }

    fn begin(&mut self, from: A, word: u32) {
        match self.from.last() {
            Some(last) if *last == from => {
                self.words.pop();
            }
            _ => self.from.push(from),
        }
        self.words.push(word);
    }

    /// The word of the longest prefix that holds `addr`; 0: none does.
    pub(crate) fn lookup(&self, addr: A) -> u32 {
        let behind = self.from.partition_point(|from| *from <= addr);
        behind.checked_sub(1).map_or(0, |at| self.words[at])
    }
}

/// What [`Intervals::lookup`] says, by a look at every route.
pub(crate) fn scan<A: Width>(routes: &[Route<A>], addr: A) -> u32 {
    let holding = routes.iter().filter(|route| route.holds(addr));
    holding.max_by_key(|route| route.len).map_or(0, |route| route.word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::{IPV4, IPV6, Mix, probe};
    use crate::reference::Random;

    /// Input: addresses in the routes, their first and last ones and those beside them, and any. Output: what a scan says.
    fn agree<A: Width>(mix: &Mix) {
        let routes: Vec<Route<A>> = mix.routes(2_000, 3);
        let intervals = Intervals::of(&routes);
        let mut random = Random(4);
        let mut addrs = vec![A::MIN, A::MAX];
        for route in &routes {
            addrs.extend([route.first, route.first.previous(), route.last(), probe(&routes, &mut random)]);
            addrs.extend(route.last().next());
            addrs.push(A::random(&mut random));
        }
        for addr in addrs {
            assert_eq!(intervals.lookup(addr), scan(&routes, addr), "{addr:x?}");
        }
        let everything = Route { first: A::MIN, len: 0, word: 5 };
        assert_eq!(Intervals::of(&[everything]).lookup(A::MAX), 5);
        assert_eq!(Intervals::<A>::of(&[]).lookup(A::MAX), 0);
    }

    #[test]
    fn intervals_are_a_linear_scan() {
        agree::<u32>(&IPV4);
        agree::<u128>(&IPV6);
    }
}
