//! Profiles: each alone, then its peers against the tunnels that it protects, and all keys and SPIs against each other.

use super::{Checked, fault, ike, is_own, not_a_host};
use crate::config::{Config, Profile, Static, StaticSa, Tunnel};
use crate::sa::Amount;
use crate::{NbmaAddr, TableId};

pub(super) fn check(config: &Config) -> Checked {
    for (n, profile) in config.profiles.iter().enumerate() {
        let path = format!("profiles[{n}]");
        if let Some(m) = config.profiles[..n].iter().position(|other| other.name == profile.name) {
            return fault(path + ".name", format_args!("`{}` is also profiles[{m}]", profile.name));
        }
        check_alone(&path, profile)?;
        ike::check(&path, profile)?;
        for (m, peer) in profile.statics.iter().enumerate() {
            let path = format!("{path}.static[{m}]");
            check_addresses(config, &path, profile, peer)?;
            for (other, before) in profile.statics[..m].iter().enumerate() {
                let is_same_local =
                    peer.local == before.local || peer.local.is_none() || before.local.is_none();
                if (peer.remote, peer.port) == (before.remote, before.port) && is_same_local {
                    let port = if peer.port == 0 { String::new() } else { format!(" port {}", peer.port) };
                    return fault(
                        path + ".remote",
                        format_args!("{}{port} is also static[{other}]", peer.remote),
                    );
                }
            }
        }
    }
    check_keys(config)
}

fn check_alone(path: &str, profile: &Profile) -> Checked {
    // RFC 4303 §3.4.3: 64 is what a receiver should have; more than 4096 is memory of each SA for packets that do not come.
    if !(64..=4096).contains(&profile.replay_window) {
        let problem = format_args!("{} is not between 64 and 4096", profile.replay_window);
        return fault(format_args!("{path}.replay_window"), problem);
    }
    let amounts = |amount: Amount| [("bytes", amount.bytes), ("packets", amount.packets)];
    let [soft, hard] = [profile.lifetimes.soft, profile.lifetimes.hard].map(amounts);
    for (name, limits) in [("soft", soft), ("hard", hard)] {
        for (unit, limit) in limits {
            if limit == Some(0) {
                return fault(format_args!("{path}.lifetimes.{name}.{unit}"), "0 is not allowed");
            }
        }
    }
    for ((unit, soft), (_, hard)) in soft.into_iter().zip(hard) {
        if let (Some(soft), Some(hard)) = (soft, hard)
            && soft > hard
        {
            let problem = format_args!("{soft} is more than the hard one, {hard}");
            return fault(format_args!("{path}.lifetimes.soft.{unit}"), problem);
        }
    }
    Ok(())
}

fn check_addresses(config: &Config, path: &str, profile: &Profile, peer: &Static) -> Checked {
    let remote = format!("{path}.remote");
    if let Some(other) = not_a_host(peer.remote.0) {
        return fault(remote, format_args!("{} is {other}", peer.remote));
    }
    if let Some(local) = peer.local
        && local.0.is_ipv4() != peer.remote.0.is_ipv4()
    {
        return fault(remote, format_args!("{} is not of the family of {local}, our own", peer.remote));
    }
    let mut first: Option<(usize, TableId, Option<NbmaAddr>)> = None;
    let mut others = Vec::new();
    for (n, tunnel) in config.tunnels.iter().enumerate().filter(|(_, t)| t.protection == Some(profile.name)) {
        let Some(source) = config.interface(tunnel.source) else { continue };
        if is_own(source, peer.remote.0) {
            return fault(remote, format_args!("{} is our own address, of `{}`", peer.remote, source.name));
        }
        let own = tunnel.nbma_of(source.addresses.iter().copied());
        if let (Some(local), Some(own)) = (peer.local, own)
            && local != own
        {
            others.push(own);
            continue;
        }
        if let Some(own) = own
            && own.0.is_ipv4() != peer.remote.0.is_ipv4()
        {
            let problem = format_args!(
                "{} is not of the family of {own}, the NBMA address of tunnels[{n}]",
                peer.remote
            );
            return fault(remote, problem);
        }
        let place = (tunnel.underlay_table, own);
        match first {
            Some((m, table, local))
                if (table, local) != place || (own.is_none() && is_apart(config, m, tunnel)) =>
            {
                let problem = format_args!(
                    "tunnels[{m}] and tunnels[{n}] have different sources, and a key is for one"
                );
                return fault(format_args!("{path}.local"), problem);
            }
            Some(_) => {}
            None => first = Some((n, place.0, place.1)),
        }
    }
    match (peer.local, first, others.first()) {
        (Some(local), None, Some(own)) => {
            let problem = format_args!(
                "{local} is not the NBMA address of a tunnel of `{}`, as {own} is",
                profile.name
            );
            fault(format_args!("{path}.local"), problem)
        }
        _ => Ok(()),
    }
}

/// Whether a tunnel has another source than the one of that number.
fn is_apart(config: &Config, n: usize, tunnel: &Tunnel) -> bool {
    config.tunnels.get(n).is_some_and(|other| other.source != tunnel.source)
}

/// One key seals for one SA: two would use one nonce twice (RFC 4106 §2, §8.1). And inbound SAs are found by the slot that their SPIs name.
fn check_keys(config: &Config) -> Checked {
    let mut all: Vec<(String, &StaticSa)> = Vec::new();
    let mut slots: Vec<(String, &StaticSa)> = Vec::new();
    for (n, profile) in config.profiles.iter().enumerate() {
        for (m, peer) in profile.statics.iter().enumerate() {
            for (direction, sa) in [("inbound", &peer.inbound), ("outbound", &peer.outbound)] {
                let path = format!("profiles[{n}].static[{m}].{direction}");
                // Whatever the salts: the four bytes may be the same ones by chance, or by a mistake.
                if let Some((other, _)) = all.iter().find(|(_, other)| other.key.0.key() == sa.key.0.key()) {
                    return fault(path + ".key", format_args!("is also that of {other}; each needs its own"));
                }
                all.push((path.clone(), sa));
                if direction == "outbound" {
                    continue;
                }
                if let Some((other, before)) =
                    slots.iter().find(|(_, other)| other.spi.slot() == sa.spi.slot())
                {
                    let same = format_args!("{other}.spi, {}: the low 18 bits are to differ", before.spi);
                    return fault(path + ".spi", format_args!("{} has the slot of {same}", sa.spi));
                }
                slots.push((path, sa));
            }
        }
    }
    Ok(())
}
