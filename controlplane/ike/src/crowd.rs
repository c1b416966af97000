//! Those who began and have not proved who they are: how many there may be, and cookies when they are many (RFC 7296 §2.6).
//!
//! ```text
//!   IKE_SA_INIT ── fewer than `cookies_above` ──────────────────────────┐
//!        └── without a good cookie: one is sent, and nothing is kept     ├── within the limits of all, of its address, and
//!        └── with one: it is where it says ───────────────────────────── ┘   of its range of ports there: an answer
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use model::config::IkeLimits;
use model::time::Instant;

use crate::Crypto;
use crate::crypto::Secret;
use crate::limits::{CALM, COOKIE_SECRET, PORT_RANGE, RANGES_PER_ADDRESS};
use crate::path::Path;

/// Counts of half-open IKE SAs, and what cookies are made with.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    all: u32,
    /// By address.
    addresses: HashMap<IpAddr, u32>,
    /// By address and range of ports.
    ranges: HashMap<(IpAddr, u16), u32>,
    /// Until when cookies are wanted, however many there are.
    crowded_until: Instant,
    secrets: Option<Secrets>,
}

/// What cookies are made with: the present one, and the one before.
struct Secrets {
    since: Instant,
    number: u8,
    present: Secret,
    before: Secret,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({}, hidden)", self.number)
    }
}

fn range(remote: SocketAddr) -> (IpAddr, u16) {
    (remote.ip(), remote.port() >> PORT_RANGE)
}

impl Crowd {
    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.all
    }

    /// Whether one more from there is let in.
    pub(crate) fn has_room(&self, limits: &IkeLimits, remote: SocketAddr) -> bool {
        let address = self.addresses.get(&remote.ip()).copied().unwrap_or_default();
        let range = self.ranges.get(&range(remote)).copied().unwrap_or_default();
        let of_address = limits.half_open_per_address.saturating_mul(RANGES_PER_ADDRESS);
        self.all < limits.half_open && address < of_address && range < limits.half_open_per_address
    }

    /// Whether who begins has to show that it is where it says: while they are many, and for some time after that. Who was asked for a cookie
    /// has a message without one on its way, perhaps more than once: were that one taken now, it would prove itself by the other one.
    pub(crate) fn wants_cookies(&mut self, limits: &IkeLimits, now: Instant) -> bool {
        if self.all >= limits.cookies_above {
            self.crowded_until = now + CALM;
        }
        now < self.crowded_until
    }

    pub(crate) fn add(&mut self, remote: SocketAddr) {
        self.all += 1;
        *self.addresses.entry(remote.ip()).or_default() += 1;
        *self.ranges.entry(range(remote)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, remote: SocketAddr) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
            if let Some(count) = counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        }
        self.all = self.all.saturating_sub(1);
        less(&mut self.addresses, remote.ip());
        less(&mut self.ranges, range(remote));
    }

    /// The cookie of somebody who begins: number of the secret, and `prf(secret, Ni | IP | port | SPIi)` (RFC 7296 §2.6).
    pub(crate) fn cookie(
        &mut self,
        crypto: &mut dyn Crypto,
        now: Instant,
        (path, spi, nonce): (&Path, u64, &[u8]),
    ) -> Vec<u8> {
        let secrets = self.secrets(crypto, now);
        made(crypto, (secrets.number, &secrets.present), path, spi, nonce)
    }

    /// Whether a cookie is one of ours, for this one, and not too old.
    pub(crate) fn is_good(
        &mut self,
        crypto: &mut dyn Crypto,
        now: Instant,
        cookie: &[u8],
        (path, spi, nonce): (&Path, u64, &[u8]),
    ) -> bool {
        let secrets = self.secrets(crypto, now);
        let secret = match cookie.first() {
            Some(number) if *number == secrets.number => &secrets.present,
            Some(number) if *number == secrets.number.wrapping_sub(1) => &secrets.before,
            _ => return false,
        };
        let expected = made(crypto, (cookie[0], secret), path, spi, nonce);
        // All bytes are looked at, whichever differ.
        expected.len() == cookie.len()
            && expected.iter().zip(cookie).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    fn secrets(&mut self, crypto: &mut dyn Crypto, now: Instant) -> &Secrets {
        let mut fresh = || {
            let mut secret = Secret::new(vec![0; 32]);
            crypto.random(&mut secret);
            secret
        };
        let secrets = self.secrets.get_or_insert_with(|| Secrets {
            since: now,
            number: 0,
            present: fresh(),
            before: fresh(),
        });
        if now.since(secrets.since) >= COOKIE_SECRET {
            let old = now.since(secrets.since) >= 2 * COOKIE_SECRET;
            let present = std::mem::replace(&mut secrets.present, fresh());
            secrets.before = if old { fresh() } else { present };
            secrets.number = secrets.number.wrapping_add(1);
            secrets.since = now;
        }
        secrets
    }
}

fn made(
    crypto: &dyn Crypto,
    (number, secret): (u8, &Secret),
    path: &Path,
    spi: u64,
    nonce: &[u8],
) -> Vec<u8> {
    let address = match path.remote.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let port = path.remote.port().to_be_bytes();
    let parts = [nonce, &address, &port, &spi.to_be_bytes()];
    let hash = crypto.prf(model::ike::Prf::Sha256, secret, &parts);
    let mut cookie = vec![number];
    cookie.extend_from_slice(&hash[..hash.len().min(32)]);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fake::Fake;
    use model::TableId;
    use std::time::Duration;

    fn path(port: u16) -> Path {
        let (local, remote) = ("192.0.2.1:500".parse().unwrap(), ([198, 51, 100, 1], port).into());
        Path { table: TableId(0), local, remote }
    }

    #[test]
    fn a_cookie_is_for_one_place_and_one_nonce_and_ends() {
        let (mut crowd, mut crypto) = (Crowd::default(), Fake::new(1));
        let at = |s| Instant::default() + Duration::from_secs(s);
        let cookie = crowd.cookie(&mut crypto, at(0), (&path(500), 7, &[1; 16]));
        assert!(cookie.len() <= 64, "RFC 7296 §2.6: 1 to 64 bytes");
        let mut good = |now, cookie: &[u8], port, spi, nonce: &[u8]| {
            crowd.is_good(&mut crypto, now, cookie, (&path(port), spi, nonce))
        };
        assert!(good(at(59), &cookie, 500, 7, &[1; 16]));
        assert!(!good(at(59), &cookie, 501, 7, &[1; 16]));
        assert!(!good(at(59), &cookie, 500, 8, &[1; 16]));
        assert!(!good(at(59), &cookie, 500, 7, &[2; 16]));
        assert!(!good(at(59), &cookie[..32], 500, 7, &[1; 16]) && !good(at(59), &[], 500, 7, &[1; 16]));
        assert!(good(at(61), &cookie, 500, 7, &[1; 16]), "the secret before still counts");
        assert!(!good(at(122), &cookie, 500, 7, &[1; 16]));
    }

    #[test]
    fn cookies_are_wanted_for_a_while_after_the_crowd() {
        let mut crowd = Crowd::default();
        let limits = IkeLimits { cookies_above: 2, ..IkeLimits::default() };
        let at = |s| Instant::default() + Duration::from_secs(s);
        let from = |port| SocketAddr::from(([198, 51, 100, 1], port));
        crowd.add(from(1));
        assert!(!crowd.wants_cookies(&limits, at(0)));
        crowd.add(from(2));
        assert!(crowd.wants_cookies(&limits, at(1)));
        crowd.remove(from(2));
        assert!(crowd.wants_cookies(&limits, at(1)) && crowd.wants_cookies(&limits, at(10)));
        assert!(!crowd.wants_cookies(&limits, at(11)));
        let always = IkeLimits { cookies_above: 0, ..limits };
        assert!(crowd.wants_cookies(&always, at(12)));
    }

    #[test]
    fn one_host_behind_a_nat_does_not_take_the_room_of_all() {
        let mut crowd = Crowd::default();
        let limits = IkeLimits { half_open: 100, half_open_per_address: 5, ..IkeLimits::default() };
        let from = |port| SocketAddr::from(([198, 51, 100, 1], port));
        for port in 1024..1029 {
            assert!(crowd.has_room(&limits, from(port)));
            crowd.add(from(port));
        }
        assert!(!crowd.has_room(&limits, from(1030)), "its range is full");
        assert!(crowd.has_room(&limits, from(4500)), "that of others is not");
        for port in (3000..60_000).step_by(1024).take(35) {
            crowd.add(from(port));
        }
        assert!(!crowd.has_room(&limits, from(60_001)), "one address has a limit, whatever its ports");
        assert!(crowd.has_room(&limits, ([198, 51, 100, 2], 500).into()));
        for port in (1024..1029).chain((3000..60_000).step_by(1024).take(35)) {
            crowd.remove(from(port));
        }
        assert_eq!((crowd.len(), crowd.addresses.len(), crowd.ranges.len()), (0, 0, 0));
    }
}
