//! Which keys of an ordered map overlap a prefix: those inside of it, and those that it is inside of.

use std::collections::BTreeMap;
use std::ops::Bound;

use model::{Prefix, ProtocolAddr};

/// A key that begins with a prefix, and sorts by it first.
pub(crate) trait ByPrefix: Copy + Ord {
    /// The least key of a prefix.
    fn first_of(prefix: Prefix) -> Self;
}

impl ByPrefix for Prefix {
    fn first_of(prefix: Prefix) -> Self {
        prefix
    }
}

impl ByPrefix for (Prefix, ProtocolAddr) {
    fn first_of(prefix: Prefix) -> Self {
        // IPv4 sorts before IPv6.
        (prefix, ProtocolAddr(std::net::Ipv4Addr::UNSPECIFIED.into()))
    }
}

/// The keys whose prefix shares an address with `prefix`. O(length of the prefix + number of the keys · log).
pub(crate) fn overlapping<K: ByPrefix, V>(
    map: &BTreeMap<K, V>,
    prefix: Prefix,
    of: impl Fn(&K) -> Prefix,
) -> Vec<K> {
    let exactly = |wanted: Prefix| {
        let keys = map.range((Bound::Included(K::first_of(wanted)), Bound::Unbounded));
        let of = &of;
        keys.map(|(k, _)| *k).take_while(move |k| of(k) == wanted)
    };
    let outside = (0..prefix.length()).filter_map(|length| Prefix::new(prefix.addr(), length));
    let mut keys: Vec<K> = outside.flat_map(exactly).collect();
    let from = map.range((Bound::Included(K::first_of(prefix)), Bound::Unbounded));
    keys.extend(from.map(|(k, _)| *k).take_while(|k| prefix.contains(of(k).addr())));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_and_outside_overlap_beside_does_not() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let all = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.0.0/24",
            "10.1.2.0/24",
            "10.1.2.128/25",
            "10.2.0.0/16",
            "::/0",
        ];
        let map: BTreeMap<_, _> = all.iter().map(|t| (prefix(t), ())).collect();
        let hits = |text| {
            overlapping(&map, prefix(text), |p| *p).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            hits("10.1.0.0/16"),
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.1.2.0/24", "10.1.2.128/25"]
        );
        assert_eq!(
            hits("10.1.2.200/32"),
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25"]
        );
        assert_eq!(hits("10.1.0.7/32"), ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24"]);
        assert_eq!(hits("2001:db8::/32"), ["::/0"]);
    }
}
