//! Each kind of mistake and what is said of it; and that the documented example has every field.

use std::collections::BTreeSet;

use serde::de::value::Error as Refused;
use serde::de::{DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

use super::mistakes::MISTAKES;
use crate::config::{
    Cluster, Config, Ike, IkeLimits, Interface, Map, Nhrp, NhrpLimits, Nhs, Profile, Psk, Registration,
    Route, Static, StaticSa, Tunnel,
};
use crate::sa::{Amount, Lifetimes};

/// A node with everything: a hub of one cloud, a spoke of another.
const GOOD: &str = include_str!("../../../../examples/nave.toml");

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
fn the_example_is_right_and_reads_as_it_was_written_but_for_its_keys() {
    let config = Config::parse(GOOD).unwrap();
    let mut text = toml::to_string(&config).unwrap();
    assert!(
        Config::parse(&text)
            .unwrap_err()
            .to_string()
            .contains("profiles[0].static[0].inbound.key: is the word")
    );
    for key in GOOD.lines().filter(|line| line.starts_with("key = \"0x")) {
        text = text.replacen("key = \"(hidden)\"", key, 1);
    }
    assert!(
        Config::parse(&text).unwrap_err().to_string().contains("profiles[1].ike.psk[0].secret: is the word")
    );
    for secret in GOOD.lines().filter(|line| line.starts_with("secret = ")) {
        text = text.replacen("secret = \"(hidden)\"", secret, 1);
    }
    let again = Config::parse(&text).unwrap();
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

#[test]
fn a_key_that_changes_is_told_and_not_said() {
    let old = Config::parse(GOOD).unwrap();
    let new = GOOD
        .replacen("0x2021222324", "0xfeedfacade", 1)
        .replacen("replay_window = 1024", "replay_window = 64", 1)
        .replacen("local = \"203.0.113.2\"", "", 1);
    let lines = |old: &Config, new: &Config| {
        let changes = old.changes_to(new);
        assert!(!format!("{changes:?}").contains("feed"));
        changes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let new = Config::parse(&new).unwrap();
    assert_eq!(
        lines(&old, &new),
        [
            "~ profiles[lab].replay_window = 1024 -> 64",
            "~ profiles[lab].static[203.0.113.7].inbound.key changed",
            "- profiles[lab].static[203.0.113.7].local = \"203.0.113.2\"",
        ]
    );
    let mut none = old.clone();
    none.profiles[0].statics.clear();
    assert!(
        lines(&none, &new).contains(&"+ profiles[lab].static[203.0.113.7].inbound.key = (hidden)".to_owned())
    );
    assert!(
        lines(&old, &none)
            .contains(&"- profiles[lab].static[203.0.113.7].outbound.key = (hidden)".to_owned())
    );
    // Both at once, crosswise: each has changed.
    let mut crossed = old.clone();
    let peer = &mut crossed.profiles[0].statics[0];
    std::mem::swap(&mut peer.inbound, &mut peer.outbound);
    let told = lines(&old, &crossed);
    assert!(
        ["inbound", "outbound"]
            .iter()
            .all(|way| told.iter().any(|line| line.ends_with(&format!("{way}.key changed"))))
    );
    let shown =
        format!("{old:?} {} {}", toml::to_string(&old).unwrap(), serde_json::to_string(&old).unwrap());
    assert!(!shown.contains("20212223") && !shown.contains("30313233"), "{shown}");
}

#[test]
fn a_secret_that_changes_is_told_and_not_said() {
    let old = Config::parse(GOOD).unwrap();
    let changed =
        GOOD.replacen("b7Yw0QmX4f9sKc2TzLr8", "another secret", 1).replacen("idle = 900", "idle = 0", 1);
    let new = Config::parse(&changed).unwrap();
    let changes = old.changes_to(&new);
    let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "~ profiles[branch].ike.idle = 900 -> 0",
            "~ profiles[branch].ike.psk[old.branch.example].secret changed"
        ]
    );
    let mut none = old.clone();
    none.profiles[1].ike.as_mut().unwrap().psks.clear();
    let told: Vec<_> = old.changes_to(&none).iter().map(ToString::to_string).collect();
    assert!(
        told.contains(&"- profiles[branch].ike.psk[old.branch.example].secret = (hidden)".to_owned()),
        "{told:?}"
    );
    let shown = format!("{changes:?} {old:?} {}", toml::to_string(&new).unwrap());
    assert!(!shown.contains("another secret") && !shown.contains("b7Yw"), "{shown}");
}

#[test]
fn a_protected_tunnel_without_an_mtu_has_what_fits_behind_esp() {
    let mtu = |changes: &[(&str, &str)]| {
        let text = changes.iter().fold(GOOD.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
        let config = Config::parse(&text).unwrap_or_else(|fault| panic!("{changes:?}: {fault}"));
        config.tunnel_mtu(config.tunnels.iter().find(|t| t.name.as_str() == "tunnel1").unwrap())
    };
    // 1500 - 20 - 8 - 16 - 16 are 1440 of text, less 2 of trailer and 8 of GRE.
    assert_eq!(mtu(&[]), 1430);
    assert_eq!(mtu(&[("key = 43\n", "")]), 1434);
    assert_eq!(mtu(&[("mode = \"transport\"", "mode = \"tunnel\"")]), 1410);
    assert_eq!(mtu(&[("protection = \"lab\"\n", "")]), 1400, "in the clear");
    assert_eq!(mtu(&[("key = 43\n", "key = 43\nmtu = 1438\n")]), 1438, "where no NAT stands before any peer");
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
        (&["profiles"], fields_of::<Profile>()),
        (&["profiles", "lifetimes"], fields_of::<Lifetimes>()),
        (&["profiles", "lifetimes", "soft"], fields_of::<Amount>()),
        (&["profiles", "lifetimes", "hard"], fields_of::<Amount>()),
        (&["profiles", "ike"], fields_of::<Ike>()),
        (&["profiles", "ike", "limits"], fields_of::<IkeLimits>()),
        (&["profiles", "ike", "psk"], fields_of::<Psk>()),
        (&["profiles", "static"], fields_of::<Static>()),
        (&["profiles", "static", "inbound"], fields_of::<StaticSa>()),
        (&["profiles", "static", "outbound"], fields_of::<StaticSa>()),
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
