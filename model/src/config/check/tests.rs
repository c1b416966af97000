//! Each kind of mistake and what is said of it; and that the documented example has every field.

use std::collections::BTreeSet;

use serde::de::value::Error as Refused;
use serde::de::{DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

use crate::config::{Cluster, Config, Interface, Map, Nhrp, NhrpLimits, Nhs, Registration, Route, Tunnel};

/// A node with everything: a hub of one cloud, a spoke of another.
const GOOD: &str = include_str!("../../../../examples/nave.toml");

/// What is put in the place of what, and what is said then; `HERE` stands for the number of that line.
const MISTAKES: &[(&str, &str, &str)] = &[
    // The text.
    ("[node]", "[node", "file: line HERE, column 6: unclosed table, expected `]`"),
    ("mtu = 1500", "mtu = 1500\nmtu = 1500", "file: line NEXT, column 1: duplicate key"),
    // Its fields.
    (
        "name = \"berlin\"",
        "nmae = \"berlin\"",
        "node.nmae: unknown field `nmae`, expected `name` or `state_file`",
    ),
    (
        "[dataplane]",
        "[plane]",
        "plane: unknown field `plane`, expected one of `node`, `dataplane`, `management`, `tables`, `interfaces`, `routes`, `tunnels`",
    ),
    (
        "unique = true",
        "uniq = true",
        "tunnels[0].nhrp.registration.uniq: unknown field `uniq`, expected `unique`",
    ),
    (
        "nbma = \"203.0.113.1\"",
        "nbna = \"203.0.113.1\"",
        "tunnels[0].nhrp.nhs[0].nbna: unknown field `nbna`, expected one of `protocol`, `nbma`, `priority`, `cluster`",
    ),
    ("source = \"wan\"\n# GRE", "# GRE", "tunnels[0].source: missing"),
    ("network_id = 1", "", "tunnels[0].nhrp.network_id: missing"),
    ("prefix = \"172.16.0.0/12\"", "", "routes[2].prefix: missing"),
    ("name = \"lan\"", "", "interfaces[1].name: missing"),
    (
        "shortcut = true",
        "shortcut = \"yes\"",
        "tunnels[0].nhrp.shortcut: invalid type: string \"yes\", expected a boolean",
    ),
    ("key = 42", "key = \"42\"", "tunnels[0].key: invalid type: string \"42\", expected u32"),
    ("key = 42", "key = 4294967296", "tunnels[0].key: invalid value: integer `4294967296`, expected u32"),
    (
        "holding_time = 600",
        "holding_time = -1",
        "tunnels[0].nhrp.holding_time: invalid value: integer `-1`, expected u16",
    ),
    (
        "holding_time = 600",
        "holding_time = 65536",
        "tunnels[0].nhrp.holding_time: invalid value: integer `65536`, expected u16",
    ),
    ("mtu = 1500", "mtu = 65536", "interfaces[0].mtu: invalid value: integer `65536`, expected u16"),
    ("ttl = 255", "ttl = 256", "tunnels[0].ttl: invalid value: integer `256`, expected u8"),
    (
        "mode = \"gre\"",
        "mode = \"ipip\"",
        "tunnels[1].mode: unknown variant `ipip`, expected `gre-multipoint` or `gre`",
    ),
    (
        "name = \"lan\"",
        "name = \"local area network\"",
        "interfaces[1].name: `local area network` is not an interface name (1 to 15 letters, digits, dots, dashes)",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.1/33\"",
        "interfaces[1].addresses[0]: `192.168.2.1/33` is not an interface address (ADDRESS/LENGTH)",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.1\"",
        "interfaces[1].addresses[0]: `192.168.2.1` is not an interface address (ADDRESS/LENGTH)",
    ),
    (
        "\"172.16.0.0/12\"",
        "\"172.16.0.0\"",
        "routes[2].prefix: `172.16.0.0` is not a prefix (ADDRESS/LENGTH)",
    ),
    (
        "\"172.16.0.0/12\"",
        "\"172.16.0.1/12\"",
        "routes[2].prefix: `172.16.0.1/12` is not a prefix: bits behind its length are set",
    ),
    ("next_hop = \"10.0.0.1\"", "next_hop = \"hub\"", "routes[1].next_hop: invalid IP address syntax"),
    (
        "nbma = \"203.0.113.1\"",
        "nbma = \"-hub.example\"",
        "tunnels[0].nhrp.nhs[0].nbma: `-hub.example` is not an NBMA address or a DNS name",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"10.0.0\"",
        "tunnels[0].nhrp.nhs[0].protocol: `10.0.0` is not a tunnel address, `dynamic` or `dynamic-ipv6`",
    ),
    (
        "\"dynamic\"]",
        "\"all\"]",
        "tunnels[0].nhrp.map_multicast[1]: `all` is not an NBMA address, `dynamic` or `nhs`",
    ),
    // The node.
    ("name = \"berlin\"", "name = \" \"", "node.name: must not be empty"),
    (
        "\"/var/lib/nave/state.json\"\n\n",
        "\"state.json\"\n\n",
        "node.state_file: `state.json` is not an absolute path",
    ),
    (
        "\"/run/nave/dataplane.sock\"\n\n",
        "\"dataplane.sock\"\n\n",
        "dataplane.socket: `dataplane.sock` is not an absolute path",
    ),
    (
        "\"/run/nave/controlplane.sock\"\n\n",
        "\"/run/nave/dataplane.sock\"\n\n",
        "management.socket: /run/nave/dataplane.sock is also dataplane.socket",
    ),
    // Interfaces.
    ("name = \"lan\"", "name = \"wan\"\nport = \"x\"", "interfaces[1].name: `wan` is also interfaces[0]"),
    ("name = \"lan\"", "name = \"lo\"", "interfaces[1].name: `lo` is the kernel's own interface"),
    (
        "name = \"lan\"",
        "name = \"lan\"\nport = \"port0\"",
        "interfaces[1].port: port `port0` is also that of interfaces[0]",
    ),
    ("name = \"lan\"", "name = \"port0\"", "interfaces[1].name: port `port0` is also that of interfaces[0]"),
    ("port = \"port0\"", "port = \"\"", "interfaces[0].port: must not be empty"),
    ("mtu = 1500", "mtu = 575", "interfaces[0].mtu: 575 is not between 576 and 9216"),
    ("mtu = 1500", "mtu = 9217", "interfaces[0].mtu: 9217 is not between 576 and 9216"),
    (
        "\"192.168.2.1/24\"",
        "\"2001:db8::1/64\"]\nmtu = 1279 #",
        "interfaces[1].mtu: 1279 is not between 1280 and 9216",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"0.0.0.0/24\"",
        "interfaces[1].addresses[0]: 0.0.0.0 is the unspecified address",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"224.0.0.5/24\"",
        "interfaces[1].addresses[0]: 224.0.0.5 is a multicast address",
    ),
    ("\"192.168.2.1/24\"", "\"250.0.0.1/24\"", "interfaces[1].addresses[0]: 250.0.0.1 is a reserved address"),
    (
        "\"192.168.2.1/24\"",
        "\"0.1.2.3/24\"",
        "interfaces[1].addresses[0]: 0.1.2.3 is an address of this network alone",
    ),
    ("\"192.168.2.1/24\"", "\"127.0.0.1/8\"", "interfaces[1].addresses[0]: 127.0.0.1 is a loopback address"),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.1/0\"",
        "interfaces[1].addresses[0]: 192.168.2.1/0 has a prefix that holds every address",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.0/24\"",
        "interfaces[1].addresses[0]: 192.168.2.0/24 is the network, not a host in it",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.255/24\"",
        "interfaces[1].addresses[0]: 192.168.2.255/24 is the broadcast address of its prefix",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"192.168.2.1/24\", \"192.168.2.1/25\"",
        "interfaces[1].addresses[1]: 192.168.2.1 is also interfaces[1].addresses[0]",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"203.0.113.2/32\"",
        "interfaces[1].addresses[0]: 203.0.113.2 is also interfaces[0].addresses[0]",
    ),
    (
        "\"192.168.2.1/24\"",
        "\"203.0.0.1/16\"",
        "interfaces[1].addresses[0]: 203.0.0.1/16 overlaps interfaces[0].addresses[0], 203.0.113.2/24",
    ),
    (
        "\"10.0.1.2/24\"",
        "\"10.0.0.3/25\"",
        "tunnels[1].addresses[0]: 10.0.0.3/25 overlaps tunnels[0].addresses[0], 10.0.0.2/24",
    ),
    (
        "\"10.0.1.2/24\"",
        "\"10.0.1.2/24\", \"fe80:0:0:1::1/64\"",
        "tunnels[1].addresses[1]: fe80:0:0:1::1 is link-local, but not in fe80::/64",
    ),
    (
        "\"10.0.1.2/24\"",
        "\"10.0.1.2/24\", \"fe80::1/64\", \"fe80::1/64\"",
        "tunnels[1].addresses[2]: fe80::1 is also tunnels[1].addresses[1]",
    ),
    // Routes.
    ("next_hop = \"203.0.113.254\"", "", "routes[0]: leads nowhere: needs next_hop, interface, or both"),
    (
        "interface = \"tunnel1\"",
        "interface = \"tunnel2\"",
        "routes[2].interface: `tunnel2` is not an interface and not a tunnel",
    ),
    (
        "next_hop = \"203.0.113.254\"",
        "next_hop = \"198.51.100.1\"",
        "routes[0].next_hop: 198.51.100.1 is not connected: no interface or tunnel has a prefix that holds it",
    ),
    (
        "next_hop = \"10.0.0.1\"",
        "next_hop = \"10.0.9.1\"",
        "routes[1].next_hop: 10.0.9.1 is in no prefix of `tunnel0`",
    ),
    (
        "next_hop = \"203.0.113.254\"",
        "next_hop = \"203.0.113.2\"",
        "routes[0].next_hop: 203.0.113.2 is our own address, interfaces[0].addresses[0]: the route would loop",
    ),
    (
        "next_hop = \"203.0.113.254\"",
        "next_hop = \"0.0.0.0\"",
        "routes[0].next_hop: 0.0.0.0 is the unspecified address",
    ),
    (
        "next_hop = \"203.0.113.254\"",
        "next_hop = \"2001:db8::1\"",
        "routes[0].next_hop: 2001:db8::1 is not of the family of 0.0.0.0/0",
    ),
    ("\"172.16.0.0/12\"", "\"192.168.0.0/16\"", "routes[2].prefix: 192.168.0.0/16 is also routes[1]"),
    (
        "\"172.16.0.0/12\"",
        "\"192.168.2.0/24\"",
        "routes[2].prefix: 192.168.2.0/24 is connected: interfaces[1].addresses[0]",
    ),
    ("\"172.16.0.0/12\"", "\"224.0.0.0/4\"", "routes[2].prefix: 224.0.0.0/4 cannot be routed"),
    ("\"172.16.0.0/12\"", "\"0.0.0.0/8\"", "routes[2].prefix: 0.0.0.0/8 cannot be routed"),
    ("\"172.16.0.0/12\"", "\"251.0.0.0/8\"", "routes[2].prefix: 251.0.0.0/8 cannot be routed"),
    (
        "\"172.16.0.0/12\"",
        "\"203.0.113.7/32\"",
        "routes[2]: 203.0.113.7/32 leads 203.0.113.7, which is tunnels[1].destination, into its own tunnel `tunnel1`",
    ),
    (
        "\"192.168.0.0/16\"",
        "\"203.0.113.0/28\"",
        "routes[1]: 203.0.113.0/28 leads 203.0.113.1, which is tunnels[0].nhrp.nhs[0].nbma, into its own tunnel `tunnel0`",
    ),
    // Tunnels.
    ("name = \"tunnel1\"", "name = \"lan\"", "tunnels[1].name: `lan` is also interfaces[1]"),
    ("source = \"wan\"", "source = \"wam\"", "tunnels[0].source: `wam` is not an interface"),
    (
        "source = \"wan\"",
        "source = \"tunnel1\"",
        "tunnels[0].source: `tunnel1` is a tunnel, not an interface",
    ),
    ("destination = \"203.0.113.7\"", "", "tunnels[1].destination: missing: mode gre has one peer"),
    ("key = 42", "key = 42\ndestination = \"203.0.113.1\"", "tunnels[0].destination: is for mode gre only"),
    (
        "destination = \"203.0.113.7\"",
        "destination = \"203.0.113.2\"",
        "tunnels[1].destination: 203.0.113.2 is our own address, of `wan`",
    ),
    (
        "destination = \"203.0.113.7\"",
        "destination = \"255.255.255.255\"",
        "tunnels[1].destination: 255.255.255.255 is the broadcast address",
    ),
    (
        "destination = \"203.0.113.7\"",
        "destination = \"2001:db8::7\"",
        "tunnels[1].destination: 2001:db8::7 is not of the family of 203.0.113.2, our own NBMA address",
    ),
    (
        "destination = \"203.0.113.7\"",
        "destination = \"10.0.1.7\"",
        "tunnels[1].destination: 10.0.1.7 is inside the tunnel: in 10.0.1.0/24",
    ),
    ("mtu = 1400", "mtu = 100", "tunnels[0].mtu: 100 is not between 576 and 9216"),
    (
        "mtu = 1400",
        "mtu = 1473",
        "tunnels[0].mtu: 1473 and 28 bytes of headers do not fit into 1500, the MTU of `wan`",
    ),
    ("ttl = 255", "ttl = 0", "tunnels[0].ttl: 0 is not allowed"),
    ("addresses = [\"10.0.1.2/24\"]", "addresses = []", "tunnels[1].addresses: a tunnel needs an address"),
    (
        "\"10.0.1.2/24\"",
        "\"10.0.1.0/24\"",
        "tunnels[1].addresses[0]: 10.0.1.0/24 is the network, not a host in it",
    ),
    ("key = 43", "key = 42", "tunnels[1].key: tunnels[0] has the same source and the same key, 42"),
    (
        "mode = \"gre\"\nsource = \"wan\"\n# NBMA address of the peer. Required with mode \"gre\", refused with any other.\ndestination = \"203.0.113.7\"",
        "mode = \"gre-multipoint\"\nsource = \"wan\"",
        "tunnels[1].nhrp: missing: mode gre-multipoint learns its peers by NHRP",
    ),
    // NHRP.
    ("network_id = 1", "network_id = 0", "tunnels[0].nhrp.network_id: 0 is not allowed"),
    ("holding_time = 600", "holding_time = 0", "tunnels[0].nhrp.holding_time: 0 is not allowed"),
    ("\"wheel\"", "\"\"", "tunnels[0].nhrp.authentication: has 0 characters, not 1 to 8"),
    ("\"wheel\"", "\"waterwheel\"", "tunnels[0].nhrp.authentication: has 10 characters, not 1 to 8"),
    (
        "\"wheel\"",
        "\"räder\"",
        "tunnels[0].nhrp.authentication: has other characters than printable ASCII without spaces",
    ),
    (
        "\"wheel\"",
        "\"a b\"",
        "tunnels[0].nhrp.authentication: has other characters than printable ASCII without spaces",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"10.0.0.2\"",
        "tunnels[0].nhrp.nhs[0].protocol: 10.0.0.2 is our own address",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"10.0.7.1\"",
        "tunnels[0].nhrp.nhs[0].protocol: 10.0.7.1 is not in the tunnel's prefix, 10.0.0.0/24",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"0.0.0.0\"",
        "tunnels[0].nhrp.nhs[0].protocol: 0.0.0.0 is the unspecified address",
    ),
    (
        "nbma = \"203.0.113.1\"",
        "nbma = \"203.0.113.2\"",
        "tunnels[0].nhrp.nhs[0].nbma: 203.0.113.2 is our own address, of `wan`",
    ),
    (
        "nbma = \"203.0.113.1\"",
        "nbma = \"10.0.0.1\"",
        "tunnels[0].nhrp.nhs[0].nbma: 10.0.0.1 is inside the tunnel: in 10.0.0.0/24",
    ),
    (
        "nbma = \"203.0.113.1\"",
        "nbma = \"203.0.113.1\"\n[[tunnels.nhrp.nhs]]\nprotocol = \"10.0.0.1\"\nnbma = \"203.0.113.5\"",
        "tunnels[0].nhrp.nhs[1].protocol: 10.0.0.1 is also nhs[0]",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"dynamic-ipv6\"",
        "tunnels[0].nhrp.nhs[0].protocol: the tunnel has no IPv6 address to register",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"fe80::1\"",
        "tunnels[0].nhrp.nhs[0].protocol: fe80::1 is link-local: a server is known by its global address, or as `dynamic-ipv6`",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"dynamic\"\nnbma = \"hub.example\"\n[[tunnels.nhrp.nhs]]\nprotocol = \"dynamic\"\nnbma = \"hub.example\"\n[[tunnels.nhrp.nhs]]\nprotocol = \"10.0.0.1\"",
        "tunnels[0].nhrp.nhs[1].nbma: hub.example is also nhs[0]",
    ),
    (
        "nbma = \"203.0.113.1\"",
        "nbma = \"203.0.113.256\"",
        "tunnels[0].nhrp.nhs[0].nbma: `203.0.113.256` is not an NBMA address or a DNS name",
    ),
    (
        "priority = 0\n",
        "priority = 256\n",
        "tunnels[0].nhrp.nhs[0].priority: invalid value: integer `256`, expected u8",
    ),
    (
        "max_connections = 1",
        "max_connections = 0",
        "tunnels[0].nhrp.clusters[0].max_connections: 0 is not allowed",
    ),
    (
        "max_connections = 1",
        "max_connections = 1\n[[tunnels.nhrp.clusters]]\nid = 0\nmax_connections = 2",
        "tunnels[0].nhrp.clusters[1].id: 0 is also clusters[0]",
    ),
    ("\nid = 0\n", "\nid = 7\n", "tunnels[0].nhrp.clusters[0].id: no nhs is in cluster 7"),
    ("max_connections = 1", "", "tunnels[0].nhrp.clusters[0].max_connections: missing"),
    (
        "nhs_fallback = 60",
        "nhs_fallback = \"seldom\"",
        "tunnels[0].nhrp.nhs_fallback: invalid value: string \"seldom\", expected `never` or a number of seconds up to 65535",
    ),
    (
        "nhs_fallback = 60",
        "nhs_fallback = 65536",
        "tunnels[0].nhrp.nhs_fallback: invalid value: integer `65536`, expected `never` or a number of seconds up to 65535",
    ),
    (
        "nhs_fallback = 60",
        "nhs_fallback = -1",
        "tunnels[0].nhrp.nhs_fallback: invalid value: integer `-1`, expected `never` or a number of seconds up to 65535",
    ),
    (
        "accept_prefixes = [\"192.168.0.0/16\"]",
        "accept_prefixes = [\"192.168.0.1/16\"]",
        "tunnels[0].nhrp.accept_prefixes[0]: `192.168.0.1/16` is not a prefix: bits behind its length are set",
    ),
    (
        "accept_prefixes = [\"192.168.0.0/16\"]",
        "accept_prefixes = [\"192.168.0.0/16\", \"224.0.0.0/4\"]",
        "tunnels[0].nhrp.accept_prefixes[1]: 224.0.0.0/4 holds no hosts that routes lead to",
    ),
    (
        "accept_prefixes = [\"192.168.0.0/16\"]",
        "accept_prefixes = [\"192.168.0.0/16\", \"192.168.0.0/16\"]",
        "tunnels[0].nhrp.accept_prefixes[1]: 192.168.0.0/16 is also accept_prefixes[0]",
    ),
    (
        "\nregistrations = 100000",
        "\nregistrations = 0",
        "tunnels[0].nhrp.limits.registrations: 0 is not allowed",
    ),
    ("\nentries = 200000", "\nentries = 0", "tunnels[0].nhrp.limits.entries: 0 is not allowed"),
    (
        "\nrequests_per_second = 50000",
        "\nrequests_per_second = 0",
        "tunnels[0].nhrp.limits.requests_per_second: 0 is not allowed",
    ),
    (
        "\nrequests_per_second_per_peer = 1000",
        "\nrequests_per_second_per_peer = 0",
        "tunnels[0].nhrp.limits.requests_per_second_per_peer: 0 is not allowed",
    ),
    (
        "addresses = [\"10.0.0.2/24\"]",
        "addresses = [\"10.0.0.2/24\", \"fe80::2/64\"]",
        "tunnels[0].addresses: fe80::2 is link-local: NHRP needs a global IPv6 address beside it",
    ),
    (
        "protocol = \"10.0.0.9\"",
        "protocol = \"10.0.0.2\"",
        "tunnels[0].nhrp.map[0].protocol: 10.0.0.2 is our own address",
    ),
    (
        "protocol = \"10.0.0.9\"",
        "protocol = \"10.0.0.1\"",
        "tunnels[0].nhrp.map[0].nbma: 10.0.0.1 is at another address in nhs[0]",
    ),
    (
        "nbma = \"203.0.113.9\"",
        "nbma = \"224.0.0.9\"",
        "tunnels[0].nhrp.map[0].nbma: 224.0.0.9 is a multicast address",
    ),
    (
        "nbma = \"203.0.113.9\"",
        "nbma = \"203.0.113.9\"\n[[tunnels.nhrp.map]]\nprotocol = \"10.0.0.9\"\nnbma = \"203.0.113.8\"",
        "tunnels[0].nhrp.map[1].protocol: 10.0.0.9 is also map[0]",
    ),
    (
        "\"203.0.113.1\", \"dynamic\"",
        "\"203.0.113.2\"",
        "tunnels[0].nhrp.map_multicast[0]: 203.0.113.2 is our own address, of `wan`",
    ),
    (
        "\"203.0.113.1\", \"dynamic\"",
        "\"dynamic\", \"dynamic\"",
        "tunnels[0].nhrp.map_multicast[1]: dynamic is also map_multicast[0]",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, redirect = true }",
        "tunnels[1].nhrp.redirect: is for mode gre-multipoint only",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, shortcut = true }",
        "tunnels[1].nhrp.shortcut: is for mode gre-multipoint only",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, map_multicast = [\"dynamic\"] }",
        "tunnels[1].nhrp.map_multicast[0]: `dynamic` is for mode gre-multipoint only",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, map_multicast = [\"203.0.113.8\"] }",
        "tunnels[1].nhrp.map_multicast[0]: 203.0.113.8 is not the tunnel's destination, 203.0.113.7",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, map = [{ protocol = \"10.0.1.7\", nbma = \"203.0.113.7\" }] }",
        "tunnels[1].nhrp.map[0]: is for mode gre-multipoint only",
    ),
    (
        "addresses = [\"10.0.1.2/24\"]",
        "addresses = [\"10.0.1.2/24\"]\nnhrp = { network_id = 2, nhs = [{ protocol = \"10.0.1.7\", nbma = \"203.0.113.8\" }] }",
        "tunnels[1].nhrp.nhs[0].nbma: 203.0.113.8 is not the tunnel's destination, 203.0.113.7",
    ),
    // Tables.
    (
        "table = 0\n# Whether",
        "table = 10\n# Whether",
        "tunnels[0].underlay_table: 0 is not the table of `wan`, 10",
    ),
    ("name = \"lan\"", "name = \"lan\"\ntable = 7", "interfaces[1].table: 7 is not one of tables"),
    ("underlay_table = 0", "underlay_table = 5", "tunnels[0].underlay_table: 5 is not one of tables"),
    ("id = 10", "id = 0", "tables[0].id: 0 is there without being named"),
    ("id = 10", "id = 10\n[[tables]]\nid = 10", "tables[1].id: 10 is also tables[0]"),
    ("netns = \"red\"", "netns = \"a/b\"", "tables[0].netns: `a/b` is not a name of a network namespace"),
    (
        "netns = \"red\"",
        "netns = \"red\"\n[[tables]]\nid = 11\nnetns = \"red\"",
        "tables[1].netns: `red` is also that of tables[0]",
    ),
    (
        "interface = \"tunnel0\"",
        "interface = \"tunnel0\"\ntable = 10",
        "routes[1].interface: `tunnel0` is in table 0, the route in 10",
    ),
    // VLANs.
    ("vlan = 100", "vlan = 4095", "interfaces[2].vlan: `4095` is not a VLAN (1 to 4094)"),
    ("vlan = 100", "# none", "interfaces[2].port: port `port0` is also that of interfaces[0]"),
    // Sizes.
    ("tcp_mss = \"auto\"", "tcp_mss = 100", "tunnels[0].tcp_mss: 100 is not between 216 and 9176"),
    (
        "outer_df = \"copy\"",
        "outer_df = \"maybe\"",
        "tunnels[0].outer_df: unknown variant `maybe`, expected one of `copy`, `set`, `clear`",
    ),
    // Equal cost.
    (
        "\"172.16.0.0/12\"\n",
        "\"0.0.0.0/0\"\nnext_hop = \"203.0.113.254\"\n",
        "routes[2].next_hop: 203.0.113.254 is in no prefix of `tunnel1`",
    ),
    // IPv6.
    (
        "\"172.16.0.0/12\"\n",
        "\"2001:db8:7::/48\"\nnext_hop = \"fe80::1\"\n#",
        "routes[2].next_hop: fe80::1 is link-local: of which interface?",
    ),
    (
        "protocol = \"10.0.0.1\"",
        "protocol = \"fd00::1\"",
        "tunnels[0].nhrp.nhs[0].protocol: fd00::1 is not in the tunnel's prefix, 10.0.0.0/24",
    ),
    (
        "\"10.0.1.2/24\"",
        "\"10.0.1.2/24\", \"fd00:1::2/64\"]\nmtu = 1279 #",
        "tunnels[1].mtu: 1279 is not between 1280 and 9216",
    ),
];

#[test]
fn each_mistake_is_refused_with_its_path_and_a_reason() {
    let mut wrong = Vec::new();
    for (good, bad, sentence) in MISTAKES {
        let Some((before, _)) = GOOD.split_once(good) else { panic!("the example has no `{good}`") };
        let here = before.lines().count() + usize::from(before.ends_with('\n'));
        let sentence = sentence.replace("HERE", &here.to_string()).replace("NEXT", &(here + 1).to_string());
        let said = match Config::parse(&GOOD.replacen(good, bad, 1)) {
            Ok(_) => "nothing".to_owned(),
            Err(fault) => fault.to_string(),
        };
        if said != sentence {
            wrong.push(format!("`{bad}`:\n  should: {sentence}\n  said:   {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_unusual_but_right_is_taken() {
    for (good, right) in [
        // A second address in the same prefix, a host prefix and a link of two.
        (
            "\"192.168.2.1/24\"",
            "\"192.168.2.1/24\", \"192.168.2.2/24\", \"192.168.9.9/32\", \"192.168.8.0/31\"",
        ),
        // An interface whose addresses come from elsewhere: what a next hop is in cannot be known.
        ("addresses = [\"203.0.113.2/24\"]", ""),
        // Each tunnel is a link of its own, and may have the same link-local address.
        (
            "key = 43",
            "key = 43\naddresses = [\"10.0.1.2/24\", \"fe80::1/64\"]\n[[tunnels]]\nname = \"tunnel2\"\nmode = \"gre\"\n\
             source = \"wan\"\ndestination = \"203.0.113.8\"\nkey = 43\naddresses = [\"10.0.2.2/24\", \"fe80::1/64\"]\n[node_]\n#",
        ),
        // Two point-to-point tunnels with one key are told apart by their peers.
        (
            "key = 43",
            "key = 43\naddresses = [\"10.0.1.2/24\"]\n[[tunnels]]\nname = \"tunnel2\"\nmode = \"gre\"\nsource = \"wan\"\n\
             destination = \"203.0.113.8\"\nkey = 43\naddresses = [\"10.0.2.2/24\"]\n[node_]\n#",
        ),
        // A tunnel address without a prefix holds no peer, and may have any.
        ("\"10.0.0.2/24\"", "\"10.0.0.2/32\""),
        ("authentication = \"wheel\"", "authentication = \"12345678\""),
        // A link-local address says nothing of where peers are.
        (
            "key = 43",
            "key = 43\naddresses = [\"10.0.1.2/24\"]\n[[tunnels]]\nname = \"tunnel5\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\n\
             key = 55\naddresses = [\"fd00:9::2/128\", \"fe80::2/64\"]\nnhrp = { network_id = 5, nhs = [{ protocol = \"fd00:9::1\", \
             nbma = \"203.0.113.1\" }] }\n[node_]\n#",
        ),
        // Both families in one tunnel, each with its server.
        ("\"10.0.0.2/24\"", "\"10.0.0.2/24\", \"fd00::2/64\""),
        (
            "nbma = \"203.0.113.9\"",
            "nbma = \"203.0.113.9\"\n[[tunnels.nhrp.nhs]]\nprotocol = \"10.0.0.8\"\nnbma = \"203.0.113.1\"",
        ),
        // A next hop that only its interface tells apart.
        (
            "prefix = \"172.16.0.0/12\"\ninterface = \"tunnel1\"",
            "prefix = \"::/0\"\nnext_hop = \"fe80::1\"\ninterface = \"lan\"",
        ),
        // Two next hops of equal cost.
        (
            "prefix = \"172.16.0.0/12\"\ninterface = \"tunnel1\"",
            "prefix = \"0.0.0.0/0\"\nnext_hop = \"203.0.113.253\"",
        ),
        // An underlay of both families: the peer says which address is ours, and with it which tunnel a packet is for.
        (
            "addresses = [\"10.0.1.2/24\"]",
            "addresses = [\"10.0.1.2/24\"]\n[[tunnels]]\nname = \"tunnel2\"\nmode = \"gre\"\nsource = \"wan6\"\n\
             destination = \"2001:db8:1::8\"\nkey = 43\naddresses = [\"10.0.2.2/24\"]\n\
             [[tunnels]]\nname = \"tunnel3\"\nmode = \"gre-multipoint\"\nsource = \"wan6\"\nkey = 43\n\
             addresses = [\"10.0.3.2/24\"]\nnhrp = { network_id = 9 }\n[[interfaces]]\nname = \"wan6\"\n\
             addresses = [\"198.51.100.1/24\", \"2001:db8:1::1/64\"]",
        ),
        ("mtu = 1400", "mtu = 1472"),
        ("holding_time = 600", "holding_time = 1"),
    ] {
        assert!(GOOD.contains(good), "the example has no `{good}`");
        let text = GOOD.replacen(good, right, 1);
        let text = text.split("[node_]").next().unwrap();
        if let Err(fault) = Config::parse(text) {
            panic!("`{right}`: {fault}");
        }
    }
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

/// Input: a route by an address that no prefix holds, with a tunnel of host addresses and without. Output: it may be a peer of that
/// tunnel, whatever the other family has.
#[test]
fn a_next_hop_may_be_any_peer_of_a_tunnel_with_host_addresses() {
    let text = GOOD.replacen("next_hop = \"203.0.113.254\"", "next_hop = \"172.31.0.9\"", 1);
    assert!(Config::parse(&text).is_err());
    let text = text.replacen("\"10.0.0.2/24\"", "\"10.0.0.2/32\", \"fd00::2/64\"", 1);
    Config::parse(&text).unwrap();
}

#[test]
fn the_example_is_right_and_reads_as_it_was_written() {
    let config = Config::parse(GOOD).unwrap();
    let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(config.changes_to(&again), []);
    assert_eq!(again, config);
}

#[test]
fn changes_are_told_by_path_and_name() {
    let old = Config::parse(GOOD).unwrap();
    let new = GOOD
        .replacen("holding_time = 600", "holding_time = 300", 1)
        .replacen("key = 43\n", "", 1)
        .replacen("prefix = \"172.16.0.0/12\"", "prefix = \"172.17.0.0/16\"", 1);
    let changes = old.changes_to(&Config::parse(&new).unwrap());
    let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "- routes[172.16.0.0/12].interface = \"tunnel1\"",
            "- routes[172.16.0.0/12].prefix = \"172.16.0.0/12\"",
            "- routes[172.16.0.0/12].table = 0",
            "+ routes[172.17.0.0/16].interface = \"tunnel1\"",
            "+ routes[172.17.0.0/16].prefix = \"172.17.0.0/16\"",
            "+ routes[172.17.0.0/16].table = 0",
            "~ tunnels[tunnel0].nhrp.holding_time = 600 -> 300",
            "- tunnels[tunnel1].key = 43",
        ]
    );
}

#[test]
fn every_setting_of_nhrp_that_changes_is_told() {
    let config = |text: &str| {
        let nhrp = format!("[tunnels.nhrp]\nnetwork_id = 1\n{text}");
        let head = "[[interfaces]]\nname = \"wan\"\naddresses = [\"192.0.2.1/24\"]\n[[tunnels]]\nname = \"tunnel0\"\n\
            mode = \"gre-multipoint\"\nsource = \"wan\"\naddresses = [\"10.0.0.1/24\"]\n";
        Config::parse(&format!("{head}{nhrp}")).unwrap()
    };
    let server = |more: &str| {
        config(&format!("[[tunnels.nhrp.nhs]]\nprotocol = \"dynamic\"\nnbma = \"hub.example\"\n{more}"))
    };
    let new = config(
        "answer_from_cache = true\naccept_prefixes = [\"10.9.0.0/16\"]\nnhs_fallback = \"never\"\n\
         limits = { registrations = 7, requests_per_second_per_peer = 9 }\n",
    );
    let lines =
        |old: &Config, new: &Config| old.changes_to(new).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        lines(&config(""), &new),
        [
            "+ tunnels[tunnel0].nhrp.accept_prefixes = [\"10.9.0.0/16\"]",
            "~ tunnels[tunnel0].nhrp.answer_from_cache = false -> true",
            "~ tunnels[tunnel0].nhrp.limits.registrations = 100000 -> 7",
            "~ tunnels[tunnel0].nhrp.limits.requests_per_second_per_peer = 1000 -> 9",
            "~ tunnels[tunnel0].nhrp.nhs_fallback = 60 -> \"never\"",
        ]
    );
    let clusters = "priority = 2\ncluster = 3\n[[tunnels.nhrp.clusters]]\nid = 3\nmax_connections = 1\n";
    assert_eq!(
        lines(&server(""), &server(clusters)),
        [
            "+ tunnels[tunnel0].nhrp.clusters[3].id = 3",
            "+ tunnels[tunnel0].nhrp.clusters[3].max_connections = 1",
            "+ tunnels[tunnel0].nhrp.nhs[dynamic].cluster = 3",
            "+ tunnels[tunnel0].nhrp.nhs[dynamic].priority = 2",
        ]
    );
}

#[test]
fn routes_of_equal_cost_and_of_other_tables_and_what_is_new_of_a_tunnel_are_told_apart() {
    let old = Config::parse(GOOD).unwrap();
    let new = GOOD
        .replacen("netns = \"red\"", "", 1)
        .replacen("vlan = 100", "vlan = 101", 1)
        .replacen("outer_df = \"copy\"", "outer_df = \"clear\"", 1)
        .replacen("tcp_mss = \"auto\"", "tcp_mss = 1300", 1)
        .replacen(
            "[[routes]]\nprefix = \"192.168.0.0/16\"",
            "[[routes]]\nprefix = \"0.0.0.0/0\"\nnext_hop = \"203.0.113.253\"\n\
             [[routes]]\nprefix = \"0.0.0.0/0\"\nnext_hop = \"192.168.2.9\"\ntable = 10\n\
             [[routes]]\nprefix = \"192.168.0.0/16\"",
            1,
        );
    let changes = old.changes_to(&Config::parse(&new).unwrap());
    let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "~ interfaces[wan.100].vlan = 100 -> 101",
            "+ routes[0.0.0.0/0 #2].next_hop = \"203.0.113.253\"",
            "+ routes[0.0.0.0/0 #2].prefix = \"0.0.0.0/0\"",
            "+ routes[0.0.0.0/0 #2].table = 0",
            "+ routes[0.0.0.0/0 in 10].next_hop = \"192.168.2.9\"",
            "+ routes[0.0.0.0/0 in 10].prefix = \"0.0.0.0/0\"",
            "+ routes[0.0.0.0/0 in 10].table = 10",
            "- tables[10].netns = \"red\"",
            "~ tunnels[tunnel0].outer_df = \"copy\" -> \"clear\"",
            "~ tunnels[tunnel0].tcp_mss = \"auto\" -> 1300",
        ]
    );
}

/// Asks a type for its fields: serde tells them before it wants the first.
struct Fields<'a>(&'a mut BTreeSet<&'static str>);

impl<'de> serde::Deserializer<'de> for Fields<'_> {
    type Error = Refused;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Refused> {
        self.0.extend(fields);
        Err(serde::de::Error::custom("that was all"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(serde::de::Error::custom("not a structure"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields_of<T: DeserializeOwned>() -> BTreeSet<&'static str> {
    let mut fields = BTreeSet::new();
    let _ = T::deserialize(Fields(&mut fields)).is_err();
    assert!(!fields.is_empty());
    fields
}

/// The fields that stand in any of the elements at a path of the example.
fn written_at(path: &[&str]) -> BTreeSet<String> {
    let root: Value = Value::Table(GOOD.parse().unwrap());
    let mut here = vec![root];
    for step in path {
        let next = here.iter().filter_map(|value| value.get(step).cloned());
        here =
            next.flat_map(|value| if let Value::Array(list) = value { list } else { vec![value] }).collect();
    }
    here.iter().filter_map(Value::as_table).flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn the_example_documents_every_field_of_every_section() {
    let sections = [
        (&[][..], fields_of::<Config>()),
        (&["node"], fields_of::<crate::config::Node>()),
        (&["dataplane"], fields_of::<crate::config::Dataplane>()),
        (&["management"], fields_of::<crate::config::Management>()),
        (&["interfaces"], fields_of::<Interface>()),
        (&["routes"], fields_of::<Route>()),
        (&["tunnels"], fields_of::<Tunnel>()),
        (&["tunnels", "nhrp"], fields_of::<Nhrp>()),
        (&["tunnels", "nhrp", "registration"], fields_of::<Registration>()),
        (&["tunnels", "nhrp", "nhs"], fields_of::<Nhs>()),
        (&["tunnels", "nhrp", "clusters"], fields_of::<Cluster>()),
        (&["tunnels", "nhrp", "limits"], fields_of::<NhrpLimits>()),
        (&["tunnels", "nhrp", "map"], fields_of::<Map>()),
    ];
    for (path, fields) in sections {
        let fields: BTreeSet<String> = fields.into_iter().map(str::to_owned).collect();
        assert_eq!(written_at(path), fields, "{path:?}");
    }
    // Each has a comment right above it where it stands first.
    let mut above = "";
    let mut seen = BTreeSet::new();
    for line in GOOD.lines() {
        if let Some((field, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let first = seen.insert(field.to_owned());
            assert!(!first || above.starts_with('#'), "`{field}` has no comment");
        }
        above = line;
    }
}
