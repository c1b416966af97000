//! Meaning: the one data model. Configuration, what the control plane tells the data plane, what comes back, and what
//! is shown are these types everywhere: the config file is serde of [`config`], gRPC is `proto::convert` of all of them,
//! the command line prints [`state`]. There is no second model.
#![forbid(unsafe_code)]

pub mod address;
pub mod config;
pub mod id;
pub mod ike;
pub mod observe;
pub mod program;
pub mod report;
pub mod sa;
pub mod state;
pub mod time;

pub use address::{InterfaceAddr, Mac, NbmaAddr, Prefix, ProtocolAddr};
pub use id::{Epoch, Instance, InterfaceName, TableId, VlanId, WorkerId};
