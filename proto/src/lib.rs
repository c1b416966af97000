//! Contract: what `nave-dataplane`, `nave-controlplane` and `nave` say to each other, over gRPC.
//!
//! The messages are the model's types and nothing else: [`client`] and [`server`] take and give those, and [`convert`] is
//! the one place where they become protobuf and come back.
#![forbid(unsafe_code)]

mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("nave.v1");
}
