//! Rules of a port for the queue that a packet comes by (rte_flow).

use std::ffi::CStr;
use std::fmt;
use std::ptr;

use dpdk_sys::{
    rte_flow, rte_flow_action, rte_flow_action_queue, rte_flow_attr, rte_flow_error, rte_flow_item,
    rte_flow_item_esp, rte_flow_item_type, rte_flow_item_udp,
};

use crate::errno::Errno;
use crate::port::Port;

/// ESP whose SPI has these bits comes by this queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspRule {
    /// The bits that count.
    pub mask: u32,
    /// What they are.
    pub value: u32,
    /// Number of the receive queue.
    pub queue: u16,
}

/// What ESP stands behind. Cards know some and not others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EspForm {
    /// An IPv4 header.
    V4,
    /// An IPv6 header.
    V6,
    /// IPv4 and UDP to port 4500 (RFC 3948).
    UdpV4,
    /// IPv6 and UDP, likewise.
    UdpV6,
}

impl EspForm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V4, Self::V6, Self::UdpV4, Self::UdpV6];
}

impl fmt::Display for EspForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "ESP over IPv4",
            Self::V6 => "ESP over IPv6",
            Self::UdpV4 => "ESP in UDP over IPv4",
            Self::UdpV6 => "ESP in UDP over IPv6",
        })
    }
}

/// Why a port does not take a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{errno}: {reason}")]
pub struct RuleRefused {
    /// What the driver returned.
    pub errno: Errno,
    /// What it says.
    pub reason: String,
}

/// UDP port of ESP, and all bits of one.
const ESP_PORT: u16 = 4500;

/// A packet as a rule describes it: bits of its headers, and which of them count. Items point into it.
struct Pattern {
    esp: [rte_flow_item_esp; 2],
    udp: [rte_flow_item_udp; 2],
}

impl Pattern {
    fn of(rule: &EspRule) -> Self {
        // SAFETY: headers of zeroes are headers.
        let (mut esp, mut udp) =
            unsafe { std::mem::zeroed::<([rte_flow_item_esp; 2], [rte_flow_item_udp; 2])>() };
        esp[0].hdr.spi = rule.value.to_be();
        esp[1].hdr.spi = rule.mask.to_be();
        udp[0].hdr.dst_port = ESP_PORT.to_be();
        udp[1].hdr.dst_port = u16::MAX;
        Self { esp, udp }
    }

    /// The headers, outermost first. The pointers are good for as long as the pattern is.
    fn items(&self, form: EspForm) -> Vec<rte_flow_item> {
        let any = |type_: rte_flow_item_type| rte_flow_item {
            type_,
            spec: ptr::null(),
            last: ptr::null(),
            mask: ptr::null(),
        };
        let ip = match form {
            EspForm::V4 | EspForm::UdpV4 => dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV4,
            EspForm::V6 | EspForm::UdpV6 => dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV6,
        };
        let udp = rte_flow_item {
            spec: (&raw const self.udp[0]).cast(),
            mask: (&raw const self.udp[1]).cast(),
            ..any(dpdk_sys::RTE_FLOW_ITEM_TYPE_UDP)
        };
        let esp = rte_flow_item {
            spec: (&raw const self.esp[0]).cast(),
            mask: (&raw const self.esp[1]).cast(),
            ..any(dpdk_sys::RTE_FLOW_ITEM_TYPE_ESP)
        };
        let mut items = vec![any(dpdk_sys::RTE_FLOW_ITEM_TYPE_ETH), any(ip)];
        if matches!(form, EspForm::UdpV4 | EspForm::UdpV6) {
            items.push(udp);
        }
        items.extend([esp, any(dpdk_sys::RTE_FLOW_ITEM_TYPE_END)]);
        items
    }
}

/// Asks the driver about one rule, or has it take it: by `call`, which is given all that rte_flow wants.
fn ask<T>(
    rule: &EspRule,
    form: EspForm,
    call: impl FnOnce(
        &rte_flow_attr,
        &[rte_flow_item],
        &[rte_flow_action],
        &mut rte_flow_error,
    ) -> Result<T, Errno>,
) -> Result<T, RuleRefused> {
    let pattern = Pattern::of(rule);
    let queue = rte_flow_action_queue { index: rule.queue };
    let conf = (&raw const queue).cast();
    let actions = [
        rte_flow_action { type_: dpdk_sys::RTE_FLOW_ACTION_TYPE_QUEUE, conf },
        rte_flow_action { type_: dpdk_sys::RTE_FLOW_ACTION_TYPE_END, conf: ptr::null() },
    ];
    // SAFETY: both are numbers and pointers, of which zeroes are some.
    let (mut attr, mut error) = unsafe { std::mem::zeroed::<(rte_flow_attr, rte_flow_error)>() };
    attr.set_ingress(1);
    call(&attr, &pattern.items(form), &actions, &mut error).map_err(|errno| {
        let reason = match error.message.is_null() {
            true => "the driver does not say why".to_owned(),
            // SAFETY: a message of a driver is a static string.
            false => unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned(),
        };
        RuleRefused { errno, reason }
    })
}

impl Port {
    /// Has the card put ESP into queues by its SPI. Of each form the port takes all rules or none. They go when the port is closed.
    ///
    /// 1. ask the driver about each rule of the form
    /// 2. have it take them; if it refuses one then, those before it go again
    pub fn steer_esp(&self, rules: &[EspRule]) -> [(EspForm, Result<(), RuleRefused>); 4] {
        EspForm::ALL.map(|form| (form, self.steer(form, rules)))
    }

    fn steer(&self, form: EspForm, rules: &[EspRule]) -> Result<(), RuleRefused> {
        let id = self.device.id();
        for rule in rules {
            ask(rule, form, |attr, items, actions, error| {
                // SAFETY: the device runs; lists end with END, and all that they point to lives.
                let returned =
                    unsafe { dpdk_sys::rte_flow_validate(id, attr, items.as_ptr(), actions.as_ptr(), error) };
                Errno::check(returned).map(drop)
            })?;
        }
        let mut taken: Vec<*mut rte_flow> = Vec::new();
        for rule in rules {
            let flow = ask(rule, form, |attr, items, actions, error| {
                // SAFETY: as above; the driver copies what it needs.
                let flow =
                    unsafe { dpdk_sys::rte_flow_create(id, attr, items.as_ptr(), actions.as_ptr(), error) };
                if flow.is_null() { Err(Errno::last()) } else { Ok(flow) }
            });
            match flow {
                Ok(flow) => taken.push(flow),
                Err(refused) => {
                    for flow in taken {
                        // SAFETY: the rule is of this device, which runs; it is not used again. Without an error to fill in.
                        let _ = unsafe { dpdk_sys::rte_flow_destroy(id, flow, ptr::null_mut()) };
                    }
                    return Err(refused);
                }
            }
        }
        self.device.keep_rules();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the items of a form say: type, and bytes of specification and mask.
    fn read(form: EspForm, rule: &EspRule) -> Vec<(rte_flow_item_type, Vec<u8>, Vec<u8>)> {
        let pattern = Pattern::of(rule);
        let bytes = |at: *const std::ffi::c_void| match at.is_null() {
            true => Vec::new(),
            // SAFETY: both headers that have bits are of eight bytes.
            false => unsafe { std::slice::from_raw_parts(at.cast::<u8>(), 8) }.to_vec(),
        };
        let items = pattern.items(form);
        items.iter().map(|item| (item.type_, bytes(item.spec), bytes(item.mask))).collect()
    }

    #[test]
    fn rules_name_the_headers_in_order_and_the_bits_that_count() {
        use dpdk_sys::{
            RTE_FLOW_ITEM_TYPE_END as END, RTE_FLOW_ITEM_TYPE_ESP as ESP, RTE_FLOW_ITEM_TYPE_ETH as ETH,
            RTE_FLOW_ITEM_TYPE_IPV4 as V4, RTE_FLOW_ITEM_TYPE_IPV6 as V6, RTE_FLOW_ITEM_TYPE_UDP as UDP,
        };
        let rule = EspRule { mask: 0x00fc_0000, value: 0x0014_0000, queue: 5 };
        let any = |kind| (kind, vec![], vec![]);
        let esp = (ESP, vec![0, 0x14, 0, 0, 0, 0, 0, 0], vec![0, 0xfc, 0, 0, 0, 0, 0, 0]);
        let udp = (UDP, vec![0, 0, 0x11, 0x94, 0, 0, 0, 0], vec![0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        for (form, ip, in_udp) in [
            (EspForm::V4, V4, false),
            (EspForm::V6, V6, false),
            (EspForm::UdpV4, V4, true),
            (EspForm::UdpV6, V6, true),
        ] {
            let mut wanted = vec![any(ETH), any(ip)];
            wanted.extend(in_udp.then(|| udp.clone()));
            wanted.extend([esp.clone(), any(END)]);
            assert_eq!(read(form, &rule), wanted, "{form}");
        }
    }

    #[test]
    fn a_refusal_says_what_the_driver_says() {
        let rule = EspRule { mask: 1, value: 1, queue: 3 };
        let silent = ask(&rule, EspForm::V4, |attr, items, actions, _| {
            assert_eq!((attr.ingress(), attr.egress(), items.len(), actions.len()), (1, 0, 4, 2));
            // SAFETY: the action is a queue, whose configuration is its number.
            let queue = unsafe { *actions[0].conf.cast::<rte_flow_action_queue>() };
            assert_eq!((actions[0].type_, queue.index), (dpdk_sys::RTE_FLOW_ACTION_TYPE_QUEUE, 3));
            Err::<(), _>(crate::errno::ENOTSUP)
        });
        assert!(silent.unwrap_err().to_string().ends_with(": the driver does not say why"));
        let told = ask(&rule, EspForm::UdpV6, |_, items, _, error| {
            assert_eq!(items.len(), 5);
            error.message = c"no such item".as_ptr();
            Err::<(), _>(crate::errno::ENOTSUP)
        });
        assert!(told.unwrap_err().to_string().ends_with(": no such item"));
    }
}
