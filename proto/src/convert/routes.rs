//! Many routes in one message: runs of puts that differ in prefix and path alone, packed on the way down and unpacked on the way up. The
//! model knows nothing of it, but that a million routes take a second less.
//!
//! ```text
//! IPv4: address (4) length (1) path (2)      IPv6: address (16) length (1) path (2)      network byte order
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use model::program::{Batch, Object, Op, Owner, Path, Route};
use model::{Prefix, TableId};

use super::kind::{enumerator, inners, table};
use super::{Malformed, Problem, needed};
use crate::pb;

/// Shorter runs are put one by one.
const SHORTEST: usize = 8;

/// What all routes of a run have in common: owner, table, and whether they are IPv4. `None` of what cannot be in one.
fn run_of(op: &Op) -> Option<(Owner, TableId, bool)> {
    match op {
        Op::Put(owner, Object::Route(Route { table, prefix, expires_in: None, .. })) => {
            Some((*owner, *table, prefix.addr().is_ipv4()))
        }
        _ => None,
    }
}

impl From<Batch> for pb::Batch {
    fn from(batch: Batch) -> Self {
        let Batch { number, ops } = batch;
        let mut packed = Vec::new();
        let mut rest = &ops[..];
        while let Some(first) = rest.first() {
            let run = run_of(first);
            let len = match run {
                Some(_) => rest.iter().take_while(|op| run_of(op) == run).count(),
                None => rest.iter().take_while(|op| run_of(op).is_none()).count(),
            };
            let (these, behind) = rest.split_at(len);
            match run {
                Some((owner, table, v4)) if len >= SHORTEST => pack(owner, table, v4, these, &mut packed),
                _ => packed.extend(these.iter().map(|op| op.clone().into())),
            }
            rest = behind;
        }
        Self { number, ops: packed }
    }
}

/// Packs a run; into several messages only if it has more paths than can be counted.
fn pack(owner: Owner, table: TableId, v4: bool, run: &[Op], into: &mut Vec<pb::Op>) {
    let mut paths: Vec<&Path> = Vec::new();
    let mut places: HashMap<&Path, u16> = HashMap::new();
    let mut records = Vec::with_capacity(run.len() * record(v4));
    let mut last = None;
    let mut close = |paths: &mut Vec<&Path>, records: &mut Vec<u8>| {
        use pb::put_routes::Routes;
        let records = std::mem::take(records);
        let routes = if v4 { Routes::Ipv4(records) } else { Routes::Ipv6(records) };
        let put = pb::PutRoutes {
            owner: enumerator::down(owner),
            table: table.0,
            paths: paths.drain(..).map(|path| path.clone().into()).collect(),
            routes: Some(routes),
        };
        into.push(pb::Op { op: Some(pb::op::Op::PutRoutes(put)) });
    };
    for op in run {
        let Op::Put(_, Object::Route(route)) = op else { continue };
        let place = match last {
            Some((path, place)) if path == &route.path => place,
            _ => match places.get(&route.path) {
                Some(place) => *place,
                None => {
                    if paths.len() > usize::from(u16::MAX) {
                        close(&mut paths, &mut records);
                        places.clear();
                    }
                    let place = u16::try_from(paths.len()).unwrap_or(u16::MAX);
                    paths.push(&route.path);
                    places.insert(&route.path, place);
                    place
                }
            },
        };
        last = Some((&route.path, place));
        match route.prefix.addr() {
            IpAddr::V4(addr) => records.extend(addr.octets()),
            IpAddr::V6(addr) => records.extend(addr.octets()),
        }
        records.push(route.prefix.length());
        records.extend(place.to_be_bytes());
    }
    close(&mut paths, &mut records);
}

/// Bytes of a route.
const fn record(v4: bool) -> usize {
    if v4 { 4 + 3 } else { 16 + 3 }
}

impl TryFrom<pb::Batch> for Batch {
    type Error = Malformed;
    fn try_from(batch: pb::Batch) -> Result<Self, Malformed> {
        let mut ops = Vec::with_capacity(batch.ops.len());
        for (n, op) in batch.ops.into_iter().enumerate() {
            let within = |wrong: Malformed| wrong.within(format_args!("ops[{n}]"));
            match op.op {
                Some(pb::op::Op::PutRoutes(put)) => {
                    unpack(put, &mut ops).map_err(|wrong| within(wrong.within("put_routes")))?;
                }
                op => ops.push(pb::Op { op }.try_into().map_err(within)?),
            }
        }
        Ok(Self { number: batch.number, ops })
    }
}

fn unpack(put: pb::PutRoutes, into: &mut Vec<Op>) -> Result<(), Malformed> {
    use pb::put_routes::Routes;
    let owner = enumerator::up(put.owner, "owner")?;
    let table = table::up(put.table, "table")?;
    let paths: Vec<Path> = inners::up(put.paths, "paths")?;
    let (records, v4) = match needed(put.routes, "routes")? {
        Routes::Ipv4(records) => (records, true),
        Routes::Ipv6(records) => (records, false),
    };
    let field = if v4 { "ipv4" } else { "ipv6" };
    let wrong = |text: String| Malformed::new(field, Problem::Text(text));
    let whole = records.chunks_exact(record(v4));
    if !whole.remainder().is_empty() {
        return Err(wrong(format!("{} bytes are not a number of whole routes", records.len())));
    }
    into.reserve(whole.len());
    for (n, bytes) in whole.enumerate() {
        let (addr, tail) = match bytes {
            [a, b, c, d, tail @ ..] if v4 => (IpAddr::from([*a, *b, *c, *d]), tail),
            _ => match bytes.split_first_chunk::<16>() {
                Some((addr, tail)) => (IpAddr::from(*addr), tail),
                None => continue,
            },
        };
        let &[length, high, low] = tail else { continue };
        // As text, it must not have bits behind its length.
        let prefix = Prefix::new(addr, length).filter(|prefix| prefix.addr() == addr);
        let prefix = prefix.ok_or_else(|| wrong(format!("route {n}: {addr}/{length} is not a prefix")))?;
        let place = u16::from_be_bytes([high, low]);
        let path = paths.get(usize::from(place)).cloned();
        let path = path.ok_or_else(|| wrong(format!("route {n}: there is no path {place}")))?;
        into.push(Op::Put(owner, Object::Route(Route { table, prefix, path, expires_in: None })));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::program::Hop;
    use prost::Message;

    use super::*;

    fn put(n: u32, v4: bool, path: Path) -> Op {
        let addr = if v4 { IpAddr::from(n.to_be_bytes()) } else { IpAddr::V6((u128::from(n) << 64).into()) };
        let prefix = Prefix::new(addr, if n.is_multiple_of(3) { 32 } else { 24 }).unwrap();
        Op::Put(Owner::Netlink, Object::Route(Route { table: TableId(3), prefix, path, expires_in: None }))
    }

    fn via(n: u32) -> Path {
        Path::Via(Hop { interface: "lan".parse().unwrap(), next_hop: IpAddr::from((n | 1).to_be_bytes()) })
    }

    /// Input: runs of both families, of other tables and owners, with odd steps between. Output: the same steps, fewer messages.
    #[test]
    fn runs_of_routes_are_packed_and_come_back_as_they_went() {
        let mut ops: Vec<Op> = (0..1000).map(|n| put(n << 8, true, via(n % 7))).collect();
        ops.extend((0..100).map(|n| put(n, false, Path::Blackhole)));
        ops.push(Op::ResyncEnd(Owner::Netlink));
        // Too few, and one that expires.
        ops.extend((0..SHORTEST as u32 - 1).map(|n| put(n, true, Path::Unreachable)));
        let Op::Put(_, Object::Route(route)) = put(9, true, via(1)) else { unreachable!() };
        let expires_in = Some(std::time::Duration::from_secs(1));
        ops.push(Op::Put(Owner::Nhrp, Object::Route(Route { expires_in, ..route })));
        let batch = Batch { number: 9, ops };
        let pb = pb::Batch::from(batch.clone());
        assert_eq!(pb.ops.len(), 2 + 1 + SHORTEST - 1 + 1);
        let bytes = pb.encode_to_vec();
        assert!(bytes.len() < 1000 * 7 + 100 * 19 + 1500, "{}", bytes.len());
        assert_eq!(Batch::try_from(pb::Batch::decode(&*bytes).unwrap()), Ok(batch));
    }

    #[test]
    fn more_paths_than_can_be_counted_are_two_messages() {
        let ops: Vec<Op> = (0..70_000).map(|n| put(n, true, via(2 * n))).collect();
        let batch = Batch { number: 1, ops };
        let pb = pb::Batch::from(batch.clone());
        assert_eq!(pb.ops.len(), 2);
        assert_eq!(Batch::try_from(pb), Ok(batch));
    }

    #[test]
    fn what_is_packed_wrongly_is_refused_with_the_route() {
        use pb::put_routes::Routes;
        let refused = |routes| {
            let put = pb::PutRoutes {
                owner: pb::Owner::Config.into(),
                table: 0,
                paths: vec![Path::Blackhole.into()],
                routes,
            };
            let op = pb::Op { op: Some(pb::op::Op::PutRoutes(put)) };
            Batch::try_from(pb::Batch { number: 1, ops: vec![op] }).unwrap_err().to_string()
        };
        assert_eq!(refused(None), "ops[0].put_routes.routes: missing");
        let v4 = |bytes: &[u8]| refused(Some(Routes::Ipv4(bytes.to_vec())));
        assert_eq!(v4(&[0; 8]), "ops[0].put_routes.ipv4: 8 bytes are not a number of whole routes");
        let good = [10, 0, 0, 0, 8, 0, 0];
        let with = |bad: [u8; 7]| v4(&[good, bad].concat());
        assert_eq!(
            with([10, 0, 0, 1, 24, 0, 0]),
            "ops[0].put_routes.ipv4: route 1: 10.0.0.1/24 is not a prefix"
        );
        assert_eq!(
            with([10, 0, 0, 1, 33, 0, 0]),
            "ops[0].put_routes.ipv4: route 1: 10.0.0.1/33 is not a prefix"
        );
        assert_eq!(with([10, 0, 0, 1, 32, 0, 1]), "ops[0].put_routes.ipv4: route 1: there is no path 1");
        let long = [&[0; 16][..], &[129, 0, 0]].concat();
        assert_eq!(
            refused(Some(Routes::Ipv6(long))),
            "ops[0].put_routes.ipv6: route 0: ::/129 is not a prefix"
        );
    }
}
