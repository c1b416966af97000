//! What stands on which NBMA address: bindings and replicas, to be stacked again when the way there changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;

use model::program::{Key, Owner};
use model::{InterfaceName, NbmaAddr, Prefix, TableId};

/// Objects by the NBMA address that they need, and the table in which it is looked up.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    on: BTreeMap<(TableId, IpAddr), BTreeSet<(Owner, Key)>>,
    place: HashMap<(Owner, Key), (TableId, IpAddr)>,
}

impl Stack {
    /// The object stands on this address now. Returns the address on which nothing stands any more because of that.
    pub(crate) fn set(
        &mut self,
        owner: Owner,
        key: Key,
        table: TableId,
        nbma: NbmaAddr,
    ) -> Option<(TableId, NbmaAddr)> {
        let left = self.remove(owner, key);
        self.on.entry((table, nbma.0)).or_default().insert((owner, key));
        self.place.insert((owner, key), (table, nbma.0));
        left.filter(|left| *left != (table, nbma))
    }

    /// The object is gone. Returns the address on which nothing stands any more because of that.
    pub(crate) fn remove(&mut self, owner: Owner, key: Key) -> Option<(TableId, NbmaAddr)> {
        let place = self.place.remove(&(owner, key))?;
        let objects = self.on.get_mut(&place)?;
        objects.remove(&(owner, key));
        if !objects.is_empty() {
            return None;
        }
        self.on.remove(&place);
        Some((place.0, NbmaAddr(place.1)))
    }

    /// The addresses inside a prefix on which something stands.
    pub(crate) fn within(&self, table: TableId, prefix: Prefix) -> Vec<NbmaAddr> {
        let from = Bound::Included((table, prefix.addr()));
        let addresses = self.on.range((from, Bound::Unbounded)).map(|(&at, _)| at);
        addresses
            .take_while(|&(t, addr)| t == table && prefix.contains(addr))
            .map(|(_, addr)| NbmaAddr(addr))
            .collect()
    }

    /// Where an object stands.
    pub(crate) fn place(&self, owner: Owner, key: Key) -> Option<(TableId, NbmaAddr)> {
        self.place.get(&(owner, key)).map(|&(table, addr)| (table, NbmaAddr(addr)))
    }

    /// Whether a binding or replica of this tunnel stands on an address.
    pub(crate) fn is_peer(&self, table: TableId, tunnel: InterfaceName, nbma: NbmaAddr) -> bool {
        let objects = self.on.get(&(table, nbma.0));
        objects
            .into_iter()
            .flatten()
            .any(|(_, key)| matches!(key, Key::Binding(of, _) | Key::Replica(of, _, _) if *of == tunnel))
    }

    /// Every object, and where it stands.
    pub(crate) fn places(&self) -> Vec<(Owner, Key, TableId, NbmaAddr)> {
        self.place.iter().map(|(&(owner, key), &(table, addr))| (owner, key, table, NbmaAddr(addr))).collect()
    }

    /// Every address on which something stands.
    pub(crate) fn all(&self) -> Vec<(TableId, NbmaAddr)> {
        self.on.keys().map(|&(table, addr)| (table, NbmaAddr(addr))).collect()
    }

    /// What stands on an address.
    pub(crate) fn objects(&self, table: TableId, nbma: NbmaAddr) -> Vec<(Owner, Key)> {
        self.on.get(&(table, nbma.0)).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_finds_what_stands_inside_it() {
        let mut stack = Stack::default();
        let nbma = |text: &str| NbmaAddr(text.parse().unwrap());
        let key = |text: &str| Key::Replica("tunnel0".parse().unwrap(), nbma(text), 0);
        for text in ["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"] {
            stack.set(Owner::Nhrp, key(text), TableId(0), nbma(text));
        }
        stack.set(Owner::Nhrp, key("192.0.2.9"), TableId(1), nbma("192.0.2.9"));
        let within = |stack: &Stack, text: &str| stack.within(TableId(0), text.parse().unwrap());
        assert_eq!(within(&stack, "192.0.2.0/24"), [nbma("192.0.2.1"), nbma("192.0.2.200")]);
        assert_eq!(within(&stack, "0.0.0.0/0").len(), 3);
        assert_eq!(within(&stack, "::/0"), [nbma("2001:db8::1")]);
        // It moves.
        stack.set(Owner::Nhrp, key("192.0.2.1"), TableId(0), nbma("203.0.113.1"));
        assert_eq!(within(&stack, "192.0.2.0/24"), [nbma("192.0.2.200")]);
        let left = stack.remove(Owner::Nhrp, key("192.0.2.1"));
        assert_eq!(left, Some((TableId(0), nbma("203.0.113.1"))));
        stack.set(Owner::Config, key("192.0.2.200"), TableId(0), nbma("192.0.2.200"));
        let set = |stack: &mut Stack, on| stack.set(Owner::Nhrp, key("192.0.2.200"), TableId(0), nbma(on));
        assert_eq!(set(&mut stack, "192.0.2.201"), None, "another one stands there still");
        assert_eq!(set(&mut stack, "192.0.2.201"), None, "it does itself");
        assert_eq!(set(&mut stack, "192.0.2.200"), Some((TableId(0), nbma("192.0.2.201"))));
        assert_eq!(within(&stack, "203.0.113.0/24"), []);
        assert_eq!(stack.all().len(), 4);
    }
}
