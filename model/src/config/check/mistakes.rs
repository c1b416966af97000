//! Each kind of mistake in a file, and what is said of it: a table that the tests walk.

/// What is put in the place of what, and what is said then; `HERE` stands for the number of that line.
pub(super) const MISTAKES: &[(&str, &str, &str)] = &[
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
        "plane: unknown field `plane`, expected one of `node`, `dataplane`, `management`, `tables`, `interfaces`, `routes`, `profiles`, `tunnels`",
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
    // Profiles.
    ("protection = \"lab\"", "protection = \"lad\"", "tunnels[1].protection: `lad` is not one of profiles"),
    (
        "name = \"lab\"",
        "name = \"lab\"\n[[profiles]]\nname = \"lab\"",
        "profiles[1].name: `lab` is also profiles[0]",
    ),
    (
        "name = \"lab\"",
        "name = \"a lab\"",
        "profiles[0].name: `a lab` is not a profile's name (1 to 15 letters, digits, dots, dashes)",
    ),
    (
        "mode = \"transport\"",
        "mode = \"clear\"",
        "profiles[0].mode: unknown variant `clear`, expected `transport` or `tunnel`",
    ),
    (
        "replay_window = 1024",
        "replay_window = 63",
        "profiles[0].replay_window: 63 is not between 64 and 4096",
    ),
    (
        "replay_window = 1024",
        "replay_window = 4097",
        "profiles[0].replay_window: 4097 is not between 64 and 4096",
    ),
    (
        "soft = { bytes = 1000000000000,",
        "soft = { bytes = 0,",
        "profiles[0].lifetimes.soft.bytes: 0 is not allowed",
    ),
    (
        "hard = { bytes = 2000000000000, packets = 4000000000 }",
        "hard = { packets = 2 }",
        "profiles[0].lifetimes.soft.packets: 3000000000 is more than the hard one, 2",
    ),
    (
        "soft = { bytes = 1000000000000,",
        "soft = { byte = 1000000000000,",
        "profiles[0].lifetimes.soft.byte: unknown field `byte`, expected `bytes` or `packets`",
    ),
    (
        "remote = \"203.0.113.7\"",
        "remote = \"203.0.113.2\"",
        "profiles[0].static[0].remote: 203.0.113.2 is our own address, of `wan`",
    ),
    (
        "remote = \"203.0.113.7\"",
        "remote = \"2001:db8::7\"",
        "profiles[0].static[0].remote: 2001:db8::7 is not of the family of 203.0.113.2, our own",
    ),
    (
        "local = \"203.0.113.2\"",
        "local = \"203.0.113.3\"",
        "profiles[0].static[0].local: 203.0.113.3 is not the NBMA address of a tunnel of `lab`, as 203.0.113.2 is",
    ),
    (
        "remote = \"203.0.113.7\"",
        "remote = \"224.0.0.7\"",
        "profiles[0].static[0].remote: 224.0.0.7 is a multicast address",
    ),
    ("port = 0", "port = 65536", "profiles[0].static[0].port: invalid value: integer `65536`, expected u16"),
    (
        "spi = 0x010000a1",
        "spi = 255",
        "profiles[0].static[0].inbound.spi: `255` is not an SPI (256 to 4294967295)",
    ),
    (
        "key = \"0x20212223",
        "key = \"0x202122",
        "profiles[0].static[0].inbound.key: 19 bytes are not a key of 16 or 32 and a salt of 4",
    ),
    (
        "key = \"0x20212223",
        "key = \"0x2021222g",
        "profiles[0].static[0].inbound.key: a key is hexadecimal digits",
    ),
    (
        "key = \"0x303132333435363738393a3b3c3d3e3fb0b1b2b3\"",
        "key = \"0x202122232425262728292a2b2c2d2e2fb0b1b2b3\"",
        "profiles[0].static[0].outbound.key: is also that of profiles[0].static[0].inbound; each needs its own",
    ),
    (
        "[profiles.static.outbound]",
        ANOTHER_PEER,
        "profiles[0].static[1].remote: 203.0.113.7 is also static[0]",
    ),
    (
        "[[profiles.static]]",
        ANOTHER_SLOT,
        "profiles[0].static[1].inbound.spi: 0x010000a1 has the slot of profiles[0].static[0].inbound.spi, 0x070000a1: \
         the low 18 bits are to differ",
    ),
    (
        "mtu = 1400",
        "mtu = 1439\nprotection = \"lab\"",
        "tunnels[0].mtu: 1439 and 65 bytes of headers and ESP do not fit into 1500, the MTU of `wan`",
    ),
    // IKE.
    (
        "name = \"branch\"",
        "name = \"branch\"\nstatic = [{ remote = \"203.0.113.8\", \
         inbound = { spi = 300, key = \"2000000000000000000000000000000000000000\" }, \
         outbound = { spi = 301, key = \"3000000000000000000000000000000000000000\" } }]",
        "profiles[1].ike: a profile has static keys or IKE, not both",
    ),
    (
        "private_key = \"/etc/nave/berlin.key\"",
        "",
        "profiles[1].ike.private_key: missing: a certificate needs its private key",
    ),
    (
        "certificate = \"/etc/nave/berlin.crt\"",
        "",
        "profiles[1].ike.certificate: missing: a private key needs its certificate",
    ),
    (
        "certificate = \"/etc/nave/berlin.crt\"",
        "certificate = \"berlin.crt\"",
        "profiles[1].ike.certificate: `berlin.crt` is not an absolute path",
    ),
    (
        "authorities = [\"/etc/nave/authority.crt\"]",
        "authorities = [\"/etc/nave/authority.crt\", \"authority2.crt\"]",
        "profiles[1].ike.authorities[1]: `authority2.crt` is not an absolute path",
    ),
    (
        "authorities = [\"/etc/nave/authority.crt\"]",
        "",
        "profiles[1].ike.revocation_lists: revoke nothing without authorities",
    ),
    (
        "identity = \"berlin.branch.example\"",
        "identity = \"keyid:00ff\"",
        "profiles[1].ike.identity: keyid:00ff cannot stand in a certificate",
    ),
    (
        "identity = \"berlin.branch.example\"",
        "identity = \"two words\"",
        "profiles[1].ike.identity: `two words` is not an identity (an address, a name, a mail address, CN=..., keyid:...)",
    ),
    (
        "peers = [\"*.branch.example\", \"hub.example\"]",
        "peers = []",
        "profiles[1].ike.peers: with none nobody is let in",
    ),
    (
        "registers = \"certified\"",
        "registers = \"nothing\"",
        "profiles[1].ike.registers: unknown variant `nothing`, expected `anything` or `certified`",
    ),
    (
        "\"aes256gcm16-prfsha384-x25519\", ",
        "\"aes256gcm16-prfsha384-modp1024\", ",
        "profiles[1].ike.proposals[0]: `aes256gcm16-prfsha384-modp1024` is not algorithms of IKE, as \
         aes256gcm16-prfsha384-x25519 or aes256-sha256-prfsha256-ecp256",
    ),
    (
        "\"aes256gcm16-prfsha384-x25519\", ",
        "\"aes128gcm16-prfsha256-ecp256\", ",
        "profiles[1].ike.proposals[1]: aes128gcm16-prfsha256-ecp256 is also proposals[0]",
    ),
    (
        "esp = [\"aes256gcm16-esn\", \"aes128gcm16-esn\", \"aes256gcm16\", \"aes128gcm16\"]",
        "esp = []",
        "profiles[1].ike.esp: must not be empty",
    ),
    ("\nlifetime = 86400", "\nlifetime = 9", "profiles[1].ike.lifetime: 9 is not between 10 and 2592000"),
    (
        "child_lifetime = 3600",
        "child_lifetime = 2592001",
        "profiles[1].ike.child_lifetime: 2592001 is not between 10 and 2592000",
    ),
    (
        "dead_peer_detection = 15",
        "dead_peer_detection = 0",
        "profiles[1].ike.dead_peer_detection: 0 is not between 1 and 3600",
    ),
    ("idle = 900", "idle = 2592001", "profiles[1].ike.idle: 2592001 is more than 2592000; 0 is never"),
    ("nat_keepalive = 20", "nat_keepalive = 0", "profiles[1].ike.nat_keepalive: 0 is not between 1 and 3600"),
    (
        "fragment_size = 1280",
        "fragment_size = 500",
        "profiles[1].ike.fragment_size: 500 is not between 576 and 9216",
    ),
    ("half_open = 8192", "half_open = 0", "profiles[1].ike.limits.half_open: 0 is not allowed"),
    (
        "half_open = 8192",
        "half_open = 256",
        "profiles[1].ike.limits.cookies_above: 512 is more than half_open, 256",
    ),
    ("secret = \"b7Yw0QmX4f9sKc2TzLr8\"", "", "profiles[1].ike.psk[0]: needs a secret or a file"),
    (
        "secret = \"b7Yw0QmX4f9sKc2TzLr8\"",
        "secret = \"\"",
        "profiles[1].ike.psk[0].secret: must not be empty",
    ),
    (
        "secret = \"b7Yw0QmX4f9sKc2TzLr8\"",
        "secret = 7",
        "profiles[1].ike.psk[0].secret: a secret stands in quotes",
    ),
    (
        "secret = \"b7Yw0QmX4f9sKc2TzLr8\"",
        "secret = \"b7Yw0QmX4f9sKc2TzLr8\"\nfile = \"/etc/nave/a.psk\"",
        "profiles[1].ike.psk[0]: has a secret and a file, and only one can count",
    ),
    (
        "peer = \"old.branch.example\"",
        "peer = \"203.0.113.0/24\"",
        "profiles[1].ike.psk[1].peer: 203.0.113.0/24 is also psk[0]",
    ),
];

/// The outbound SA of the example's peer, and that peer once more.
const ANOTHER_PEER: &str = "[profiles.static.outbound]\nspi = 256\nkey = \"0000000000000000000000000000000000000000\"\n\
    [[profiles.static]]\nremote = \"203.0.113.7\"\ninbound = { spi = 257, key = \"1000000000000000000000000000000000000000\" }\n\
    [profiles.static.outbound]";

/// Another peer before the example's, in its slot.
const ANOTHER_SLOT: &str = "[[profiles.static]]\nremote = \"203.0.113.8\"\n\
    inbound = { spi = 0x070000a1, key = \"1000000000000000000000000000000000000000\" }\n\
    outbound = { spi = 256, key = \"0000000000000000000000000000000000000000\" }\n[[profiles.static]]";
