//! The generated code of the contract in `proto/flowproxy/v1/`, whose comments are its manual.

#[expect(missing_docs, reason = "generated; the comments in proto/ become the docs where there are any")]
#[expect(clippy::all, reason = "generated code follows its generator's style")]
mod v1 {
    tonic::include_proto!("flowproxy.v1");
}

pub use v1::*;

pub(crate) mod state {
    tonic::include_proto!("flowproxy.state.v1");
}
