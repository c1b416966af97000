//! Every type comes back as it went.
