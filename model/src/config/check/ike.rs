//! `[profiles.ike]`: each section alone. What its files hold is read by who uses them.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use super::{Checked, check_file, fault};
use crate::config::{Ike, IkeLimits, Profile, Psk};
use crate::ike::Identity;

/// Shorter, and an SA is replaced before it has settled; in seconds.
const LEAST_LIFETIME: u32 = 10;
/// 30 days, in seconds.
const MOST_LIFETIME: u32 = 2_592_000;
/// Proposals have numbers of 8 bits (RFC 7296 §3.3.1), and a first message has to go in one packet.
const MOST_SUITES: usize = 64;

pub(super) fn check(path: &str, profile: &Profile) -> Checked {
    let Some(ike) = &profile.ike else { return Ok(()) };
    let path = format!("{path}.ike");
    if !profile.statics.is_empty() {
        return fault(path, "a profile has static keys or IKE, not both");
    }
    check_credentials(&path, ike)?;
    for (n, psk) in ike.psks.iter().enumerate() {
        check_psk(&format!("{path}.psk[{n}]"), psk)?;
    }
    check_unique(&path, "psk", ".peer", ike.psks.iter().map(|psk| &psk.peer))?;
    if ike.peers.is_empty() {
        return fault(path + ".peers", "with none nobody is let in");
    }
    check_unique(&path, "peers", "", ike.peers.iter())?;
    check_suites(&path, "proposals", &ike.proposals)?;
    check_suites(&path, "esp", &ike.esp)?;
    check_times(&path, ike)?;
    check_limits(&format!("{path}.limits"), &ike.limits)
}

fn check_credentials(path: &str, ike: &Ike) -> Checked {
    match (&ike.certificate, &ike.private_key) {
        (Some(_), None) => {
            return fault(format_args!("{path}.private_key"), "missing: a certificate needs its private key");
        }
        (None, Some(_)) => {
            return fault(format_args!("{path}.certificate"), "missing: a private key needs its certificate");
        }
        (None, None) if ike.psks.is_empty() => {
            return fault(path, "needs a certificate or a psk to prove who we are");
        }
        (Some(_), Some(_)) if ike.authorities.is_empty() && ike.psks.is_empty() => {
            return fault(
                format_args!("{path}.authorities"),
                "without any, and without a psk, no peer can be believed",
            );
        }
        _ => {}
    }
    // A certificate has names of all other kinds (RFC 4945 §3.1).
    if let (Some(identity @ Identity::KeyId(_)), Some(_)) = (&ike.identity, &ike.certificate) {
        return fault(
            format_args!("{path}.identity"),
            format_args!("{identity} cannot stand in a certificate"),
        );
    }
    let fixed = [("certificate", &ike.certificate), ("private_key", &ike.private_key)];
    for (name, file) in fixed {
        file.as_ref().map_or(Ok(()), |file| check_file(&format!("{path}.{name}"), file))?;
    }
    for (name, files) in [("authorities", &ike.authorities), ("revocation_lists", &ike.revocation_lists)] {
        for (n, file) in files.iter().enumerate() {
            check_file(&format!("{path}.{name}[{n}]"), file)?;
        }
        check_unique(path, name, "", files.iter().map(|file| file.display().to_string()))?;
    }
    if ike.authorities.is_empty() && !ike.revocation_lists.is_empty() {
        return fault(format_args!("{path}.revocation_lists"), "revoke nothing without authorities");
    }
    Ok(())
}

fn check_psk(path: &str, psk: &Psk) -> Checked {
    match (&psk.secret, &psk.file) {
        (None, None) => fault(path, "needs a secret or a file"),
        (Some(_), Some(_)) => fault(path, "has a secret and a file, and only one can count"),
        (Some(secret), None) if secret.0.is_empty() => {
            fault(format_args!("{path}.secret"), "must not be empty")
        }
        (Some(_), None) => Ok(()),
        (None, Some(file)) => check_file(&format!("{path}.file"), file),
    }
}

fn check_suites<T: Copy + Eq + Hash + Display>(path: &str, name: &str, suites: &[T]) -> Checked {
    if suites.is_empty() {
        return fault(format_args!("{path}.{name}"), "must not be empty");
    }
    if suites.len() > MOST_SUITES {
        let problem = format_args!("{} are more than {MOST_SUITES}", suites.len());
        return fault(format_args!("{path}.{name}"), problem);
    }
    check_unique(path, name, "", suites.iter())
}

/// Of two that are the same, nobody can tell which counts.
fn check_unique<T: Eq + Hash + Display>(
    path: &str,
    name: &str,
    field: &str,
    all: impl Iterator<Item = T>,
) -> Checked {
    let mut seen: HashMap<T, usize> = HashMap::new();
    for (n, one) in all.enumerate() {
        if let Some(before) = seen.get(&one) {
            return fault(
                format_args!("{path}.{name}[{n}]{field}"),
                format_args!("{one} is also {name}[{before}]"),
            );
        }
        seen.insert(one, n);
    }
    Ok(())
}

fn check_times(path: &str, ike: &Ike) -> Checked {
    let lifetime = (LEAST_LIFETIME, MOST_LIFETIME);
    for (name, value, (least, most)) in [
        ("lifetime", ike.lifetime, lifetime),
        ("child_lifetime", ike.child_lifetime, lifetime),
        ("dead_peer_detection", ike.dead_peer_detection.into(), (1, 3600)),
        ("nat_keepalive", ike.nat_keepalive.into(), (1, 3600)),
        // What every IPv4 host takes (RFC 7383 §2.5.1), and the largest MTU that an interface may have.
        ("fragment_size", ike.fragment_size.into(), (576, 9216)),
    ] {
        if !(least..=most).contains(&value) {
            return fault(
                format_args!("{path}.{name}"),
                format_args!("{value} is not between {least} and {most}"),
            );
        }
    }
    if ike.idle > MOST_LIFETIME {
        let problem = format_args!("{} is more than {MOST_LIFETIME}; 0 is never", ike.idle);
        return fault(format_args!("{path}.idle"), problem);
    }
    Ok(())
}

fn check_limits(path: &str, limits: &IkeLimits) -> Checked {
    let IkeLimits { half_open, half_open_per_address, cookies_above, auth_per_second, sas } = *limits;
    for (name, value) in [
        ("half_open", half_open),
        ("half_open_per_address", half_open_per_address),
        ("auth_per_second", auth_per_second),
        ("sas", sas),
    ] {
        if value == 0 {
            return fault(format_args!("{path}.{name}"), "0 is not allowed");
        }
    }
    for (name, value) in [("half_open_per_address", half_open_per_address), ("cookies_above", cookies_above)]
    {
        if value > half_open {
            let problem = format_args!("{value} is more than half_open, {half_open}");
            return fault(format_args!("{path}.{name}"), problem);
        }
    }
    Ok(())
}
