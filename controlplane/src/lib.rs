//! The control plane: the process that decides. NHRP, the routing information base and the operator's configuration come
//! together in the [`conductor`], a pure state machine; everything else here carries its inputs in and its outputs out.
#![forbid(unsafe_code)]

pub mod checked_file;
pub mod conductor;
pub mod credentials;
pub mod journal_file;
pub mod kernel;
pub mod lease_file;
pub mod lookup;
pub mod management;
pub mod programmer;
pub mod queue;
pub mod rib;
pub mod shell;
pub mod sockets;
pub mod state_file;
