//! The alphabet out. The shell carries out every action, in order; none is optional.

use serde::{Deserialize, Serialize};

use model::program::{Key, Object};
use model::{InterfaceName, NbmaAddr};

use crate::Event;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Send an NHRP packet as GRE payload (protocol type 0x2001) straight to an NBMA address.
    Send {
        /// Through this tunnel.
        tunnel: InterfaceName,
        /// To this address.
        to: NbmaAddr,
        /// To this UDP port there, where encapsulated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The packet, from its fixed header on.
        #[serde(with = "crate::hex")]
        bytes: Vec<u8>,
    },
    /// Program this for owner NHRP: a binding, a shortcut (route), a replica or a fall-back. `link` is `None` in it: what an NBMA
    /// address is stacked on is the conductor's business.
    Put(Object),
    /// Program it away.
    Remove(Key),
    /// Look up a server's DNS name, in the namespace of the tunnel's underlay; [`crate::Input::LookedUp`] is the answer, whatever it is.
    LookUp {
        /// The tunnel that it is for.
        tunnel: InterfaceName,
        /// The name.
        name: String,
    },
    /// The snapshot is worth saving: a binding, a shortcut or the reserve of request ids changed. A busy hub says so many times
    /// a second; several may be gathered into one.
    Save,
    /// Tell whoever listens.
    Event(Event),
}
