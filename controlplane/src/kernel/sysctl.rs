//! Settings of a twin that have no netlink message. Which and why: [`super`].

use std::io;
use std::path::{Path, PathBuf};

use super::Failure;

/// `/proc/sys/net` is that of the thread's own network namespace.
const NET: &str = "/proc/sys/net";

/// Makes the settings of the twin `name`. Those that are right already are not written, so that a read-only `/proc/sys` that
/// somebody prepared will do.
pub(super) fn settle(name: &str, ipv6: bool) -> Vec<Failure> {
    let strict = read(&conf("ipv4", "all", "rp_filter")).is_ok_and(|value| value != "0");
    let v4 = |key| conf("ipv4", name, key);
    let v6 = |key| conf("ipv6", name, key);
    let arp = |key: &str| [NET, "ipv4", "neigh", name, key].iter().collect();
    let mut wanted = vec![
        (v4("forwarding"), "0"),
        // The kernel takes the greater of this and `all`; 2 is looser than 1.
        (v4("rp_filter"), if strict { "2" } else { "0" }),
        (v4("send_redirects"), "0"),
        (v4("accept_redirects"), "0"),
        (conf("ipv4", "all", "accept_redirects"), "0"),
        (v4("arp_ignore"), "1"),
        (v4("arp_announce"), "2"),
        (v4("promote_secondaries"), "1"),
        (arp("retrans_time_ms"), "200"),
        (arp("ucast_solicit"), "15"),
        (arp("mcast_solicit"), "15"),
    ];
    if Path::new(NET).join("ipv6").exists() {
        wanted.push((v6("accept_ra"), "0"));
        wanted.push((v6("disable_ipv6"), if ipv6 { "0" } else { "1" }));
    }
    let settle = |(path, value): (PathBuf, &str)| {
        let result = match read(&path) {
            Ok(now) if now == value => return None,
            Ok(_) => std::fs::write(&path, value),
            Err(error) => Err(error),
        };
        result.err().map(|error| Failure::new(format!("write {value} to {}", path.display()), error))
    };
    wanted.into_iter().filter_map(settle).collect()
}

fn conf(family: &str, interface: &str, key: &str) -> PathBuf {
    [NET, family, "conf", interface, key].iter().collect()
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
