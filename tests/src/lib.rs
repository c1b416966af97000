//! Fixtures that the black-box tests share: namespaces, nodes, captures.
