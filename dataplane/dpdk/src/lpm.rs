//! DPDK's own longest-prefix match tables: bystanders. Nave forwards by `forwarding::fib`; these are here so that `nave-perf
//! fib` can measure it beside them, in one process and on the same routes.
//!
//! | type | library | scheme |
//! | --- | --- | --- |
//! | [`Lpm`] | rte_lpm | IPv4, DIR-24-8 |
//! | [`Fib`] | rte_fib, `dir24_8`, next hops of 4 bytes | IPv4, DIR-24-8, routes in a tree of their own (rte_rib) |
//! | [`Lpm6`] | rte_lpm6 | IPv6, 24 bits and then 8 at a time, routes in a hash table |
//! | [`Fib6`] | rte_fib6, `trie`, next hops of 4 bytes | IPv6, the same strides, routes in a tree of their own |
//!
//! A next hop is a number from 1 to [`MOST_HOP`]; 0 is "no route". IPv4 addresses are in host byte order, IPv6 addresses are bytes
//! as in a packet. A table is one thread's, and is freed when it is dropped.

use std::ffi::CString;
use std::ptr::NonNull;

use crate::Eal;
use crate::errno::Errno;

/// Largest next hop that all four tables have room for: rte_lpm6 has 21 bits.
pub const MOST_HOP: u32 = (1 << 21) - 1;

/// An IPv6 address, as in a packet.
pub type V6 = [u8; 16];

/// Size of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room<'a> {
    /// Unique among the tables of its type, at most 25 bytes.
    pub name: &'a str,
    /// Most routes.
    pub routes: u32,
    /// Most groups of 256 entries: one for each block of 24, 32, 40 … bits that longer prefixes are in.
    pub groups: u32,
}

/// A table did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LpmError {
    /// It could not be made.
    #[error("table {name:?} for {routes} routes: {errno}")]
    Create {
        /// The table.
        name: String,
        /// Routes that were asked for.
        routes: u32,
        /// Why not: `EEXIST` for a name in use, `EINVAL` for an impossible name or size, `ENOMEM`.
        errno: Errno,
    },
    /// A route could not be added.
    #[error("adding a route: {0}")]
    Add(Errno),
    /// A route could not be deleted; most often there is none.
    #[error("deleting a route: {0}")]
    Delete(Errno),
    /// The next hop is 0 or larger than [`MOST_HOP`].
    #[error("{0} is no next hop")]
    Hop(u32),
}

/// Bytes that are allocated from DPDK's heaps now, by anybody in this process.
#[must_use]
pub fn heap_bytes(_: &Eal) -> usize {
    let used = |socket| {
        // SAFETY: figures of zeroes are figures; the EAL runs, and the call writes them or fails for a socket that is not there.
        let (stats, returned) = unsafe {
            let mut stats = std::mem::zeroed::<dpdk_sys::rte_malloc_socket_stats>();
            let returned = dpdk_sys::rte_malloc_get_socket_stats(socket, &raw mut stats);
            (stats, returned)
        };
        if returned == 0 { stats.heap_allocsz_bytes } else { 0 }
    };
    (0..dpdk_sys::RTE_MAX_NUMA_NODES as i32).map(used).sum()
}

/// The name as C wants it, and the sizes as DPDK does.
fn prepare(room: &Room<'_>) -> Result<(CString, i32), LpmError> {
    let invalid = || refused(room, Errno(nix::errno::Errno::EINVAL as i32));
    let name = CString::new(room.name).map_err(|_| invalid())?;
    let routes = i32::try_from(room.routes).map_err(|_| invalid())?;
    if room.name.len() > 25 { Err(invalid()) } else { Ok((name, routes)) }
}

fn refused(room: &Room<'_>, errno: Errno) -> LpmError {
    LpmError::Create { name: room.name.to_owned(), routes: room.routes, errno }
}

/// The pointer that a create function returned.
fn made<T>(room: &Room<'_>, table: *mut T) -> Result<NonNull<T>, LpmError> {
    NonNull::new(table).ok_or_else(|| refused(room, Errno::last()))
}

fn hop(hop: u32) -> Result<u32, LpmError> {
    if (1..=MOST_HOP).contains(&hop) { Ok(hop) } else { Err(LpmError::Hop(hop)) }
}

/// How many addresses there is also room for an answer to.
fn both<A, W>(addresses: &[A], words: &[W]) -> u32 {
    u32::try_from(addresses.len().min(words.len())).unwrap_or(u32::MAX)
}

/// An rte_lpm.
#[derive(Debug)]
pub struct Lpm(NonNull<dpdk_sys::rte_lpm>);

impl Lpm {
    /// An empty table.
    ///
    /// # Errors
    /// [`LpmError::Create`].
    pub fn create(_: &Eal, room: &Room<'_>) -> Result<Self, LpmError> {
        let (name, _) = prepare(room)?;
        let config = dpdk_sys::rte_lpm_config { max_rules: room.routes, number_tbl8s: room.groups, flags: 0 };
        // SAFETY: the EAL runs; name and configuration are copied.
        let table =
            unsafe { dpdk_sys::rte_lpm_create(name.as_ptr(), dpdk_sys::SOCKET_ID_ANY, &raw const config) };
        made(room, table).map(Self)
    }

    /// Adds a route, or changes its next hop.
    ///
    /// # Errors
    /// [`LpmError::Add`], [`LpmError::Hop`].
    pub fn add(&mut self, address: u32, len: u8, to: u32) -> Result<(), LpmError> {
        let to = hop(to)?;
        // SAFETY: the table lives; `&mut self`.
        let returned = unsafe { dpdk_sys::rte_lpm_add(self.0.as_ptr(), address, len, to) };
        Errno::check(returned).map(drop).map_err(LpmError::Add)
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// [`LpmError::Delete`].
    pub fn delete(&mut self, address: u32, len: u8) -> Result<(), LpmError> {
        // SAFETY: as for `add`.
        let returned = unsafe { dpdk_sys::rte_lpm_delete(self.0.as_ptr(), address, len) };
        Errno::check(returned).map(drop).map_err(LpmError::Delete)
    }

    /// Looks addresses up, each after the other, with `rte_lpm_lookup` inlined into the loop. [`Lpm::hop`] reads a word.
    #[inline]
    pub fn lookup_each(&self, addresses: &[u32], words: &mut [u32]) {
        let count = both(addresses, words);
        // SAFETY: the table lives; both slices have `count` elements.
        unsafe {
            dpdk_sys::nave_lpm_lookup_each(self.0.as_ptr(), addresses.as_ptr(), words.as_mut_ptr(), count);
        }
    }

    /// The same with `rte_lpm_lookup_bulk`, which keeps as many numbers as there are addresses on the stack.
    #[inline]
    pub fn lookup_bulk(&self, addresses: &[u32], words: &mut [u32]) {
        let count = both(addresses, words).min(4096);
        // SAFETY: as for `lookup_each`.
        unsafe {
            dpdk_sys::nave_lpm_lookup_bulk(self.0.as_ptr(), addresses.as_ptr(), words.as_mut_ptr(), count);
        }
    }

    /// The next hop in a word; 0: no route.
    #[must_use]
    pub fn hop(word: u32) -> u32 {
        if word & dpdk_sys::RTE_LPM_LOOKUP_SUCCESS == 0 { 0 } else { word & 0x00ff_ffff }
    }
}

impl Drop for Lpm {
    fn drop(&mut self) {
        // SAFETY: the table lives and nobody else has it.
        unsafe { dpdk_sys::rte_lpm_free(self.0.as_ptr()) }
    }
}

/// An rte_fib of the type `dir24_8`.
#[derive(Debug)]
pub struct Fib(NonNull<dpdk_sys::rte_fib>);

impl Fib {
    /// An empty table.
    ///
    /// # Errors
    /// [`LpmError::Create`].
    pub fn create(_: &Eal, room: &Room<'_>) -> Result<Self, LpmError> {
        let (name, routes) = prepare(room)?;
        // SAFETY: a configuration of zeroes is one.
        let mut config = unsafe { std::mem::zeroed::<dpdk_sys::rte_fib_conf>() };
        config.type_ = dpdk_sys::RTE_FIB_DIR24_8;
        config.max_routes = routes;
        config.__bindgen_anon_1.dir24_8.nh_sz = dpdk_sys::RTE_FIB_DIR24_8_4B;
        config.__bindgen_anon_1.dir24_8.num_tbl8 = room.groups;
        // SAFETY: the EAL runs; name and configuration are copied.
        let table =
            unsafe { dpdk_sys::rte_fib_create(name.as_ptr(), dpdk_sys::SOCKET_ID_ANY, &raw mut config) };
        made(room, table).map(Self)
    }

    /// Adds a route, or changes its next hop.
    ///
    /// # Errors
    /// [`LpmError::Add`], [`LpmError::Hop`].
    pub fn add(&mut self, address: u32, len: u8, to: u32) -> Result<(), LpmError> {
        let to = hop(to)?.into();
        // SAFETY: the table lives; `&mut self`.
        let returned = unsafe { dpdk_sys::rte_fib_add(self.0.as_ptr(), address, len, to) };
        Errno::check(returned).map(drop).map_err(LpmError::Add)
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// [`LpmError::Delete`].
    pub fn delete(&mut self, address: u32, len: u8) -> Result<(), LpmError> {
        // SAFETY: as for `add`.
        let returned = unsafe { dpdk_sys::rte_fib_delete(self.0.as_ptr(), address, len) };
        Errno::check(returned).map(drop).map_err(LpmError::Delete)
    }

    /// Looks addresses up with `rte_fib_lookup_bulk`: the next hops, 0 for none.
    #[inline]
    pub fn lookup_bulk(&self, addresses: &[u32], hops: &mut [u64]) {
        let count = both(addresses, hops);
        // SAFETY: the table lives; both slices have `count` elements; the call only reads the addresses, though it does not say so.
        unsafe {
            dpdk_sys::rte_fib_lookup_bulk(
                self.0.as_ptr(),
                addresses.as_ptr().cast_mut(),
                hops.as_mut_ptr(),
                count as i32,
            );
        }
    }
}

impl Drop for Fib {
    fn drop(&mut self) {
        // SAFETY: the table lives and nobody else has it.
        unsafe { dpdk_sys::rte_fib_free(self.0.as_ptr()) }
    }
}

/// An rte_lpm6.
#[derive(Debug)]
pub struct Lpm6(NonNull<dpdk_sys::rte_lpm6>);

impl Lpm6 {
    /// An empty table.
    ///
    /// # Errors
    /// [`LpmError::Create`].
    pub fn create(_: &Eal, room: &Room<'_>) -> Result<Self, LpmError> {
        let (name, _) = prepare(room)?;
        let config =
            dpdk_sys::rte_lpm6_config { max_rules: room.routes, number_tbl8s: room.groups, flags: 0 };
        // SAFETY: the EAL runs; name and configuration are copied.
        let table =
            unsafe { dpdk_sys::rte_lpm6_create(name.as_ptr(), dpdk_sys::SOCKET_ID_ANY, &raw const config) };
        made(room, table).map(Self)
    }

    /// Adds a route, or changes its next hop.
    ///
    /// # Errors
    /// [`LpmError::Add`], [`LpmError::Hop`].
    pub fn add(&mut self, address: &V6, len: u8, to: u32) -> Result<(), LpmError> {
        let to = hop(to)?;
        // SAFETY: the table lives; `&mut self`.
        let returned = unsafe { dpdk_sys::rte_lpm6_add(self.0.as_ptr(), address.as_ptr(), len, to) };
        Errno::check(returned).map(drop).map_err(LpmError::Add)
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// [`LpmError::Delete`].
    pub fn delete(&mut self, address: &V6, len: u8) -> Result<(), LpmError> {
        // SAFETY: as for `add`.
        let returned = unsafe { dpdk_sys::rte_lpm6_delete(self.0.as_ptr(), address.as_ptr(), len) };
        Errno::check(returned).map(drop).map_err(LpmError::Delete)
    }

    /// Looks one address up: the next hop, 0 for none.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: &V6) -> u32 {
        let mut hop = 0;
        // SAFETY: the table lives; the call writes the next hop if it finds one.
        let returned = unsafe { dpdk_sys::rte_lpm6_lookup(self.0.as_ptr(), address.as_ptr(), &raw mut hop) };
        if returned == 0 { hop } else { 0 }
    }

    /// Looks addresses up with `rte_lpm6_lookup_bulk_func`: the next hops, -1 for none.
    #[inline]
    pub fn lookup_bulk(&self, addresses: &[V6], hops: &mut [i32]) {
        let count = both(addresses, hops);
        // SAFETY: the table lives; both slices have `count` elements; the call only reads the addresses, though it does not say so.
        unsafe {
            dpdk_sys::rte_lpm6_lookup_bulk_func(
                self.0.as_ptr(),
                addresses.as_ptr().cast_mut(),
                hops.as_mut_ptr(),
                count,
            );
        }
    }
}

impl Drop for Lpm6 {
    fn drop(&mut self) {
        // SAFETY: the table lives and nobody else has it.
        unsafe { dpdk_sys::rte_lpm6_free(self.0.as_ptr()) }
    }
}

/// An rte_fib6 of the type `trie`.
#[derive(Debug)]
pub struct Fib6(NonNull<dpdk_sys::rte_fib6>);

impl Fib6 {
    /// An empty table.
    ///
    /// # Errors
    /// [`LpmError::Create`].
    pub fn create(_: &Eal, room: &Room<'_>) -> Result<Self, LpmError> {
        let (name, routes) = prepare(room)?;
        // SAFETY: a configuration of zeroes is one.
        let mut config = unsafe { std::mem::zeroed::<dpdk_sys::rte_fib6_conf>() };
        config.type_ = dpdk_sys::RTE_FIB6_TRIE;
        config.max_routes = routes;
        config.__bindgen_anon_1.trie.nh_sz = dpdk_sys::RTE_FIB6_TRIE_4B;
        config.__bindgen_anon_1.trie.num_tbl8 = room.groups;
        // SAFETY: the EAL runs; name and configuration are copied.
        let table =
            unsafe { dpdk_sys::rte_fib6_create(name.as_ptr(), dpdk_sys::SOCKET_ID_ANY, &raw mut config) };
        made(room, table).map(Self)
    }

    /// Adds a route, or changes its next hop.
    ///
    /// # Errors
    /// [`LpmError::Add`], [`LpmError::Hop`].
    pub fn add(&mut self, address: &V6, len: u8, to: u32) -> Result<(), LpmError> {
        let to = hop(to)?.into();
        // SAFETY: the table lives; `&mut self`.
        let returned = unsafe { dpdk_sys::rte_fib6_add(self.0.as_ptr(), address.as_ptr(), len, to) };
        Errno::check(returned).map(drop).map_err(LpmError::Add)
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// [`LpmError::Delete`].
    pub fn delete(&mut self, address: &V6, len: u8) -> Result<(), LpmError> {
        // SAFETY: as for `add`.
        let returned = unsafe { dpdk_sys::rte_fib6_delete(self.0.as_ptr(), address.as_ptr(), len) };
        Errno::check(returned).map(drop).map_err(LpmError::Delete)
    }

    /// Looks addresses up with `rte_fib6_lookup_bulk`: the next hops, 0 for none.
    #[inline]
    pub fn lookup_bulk(&self, addresses: &[V6], hops: &mut [u64]) {
        let count = both(addresses, hops);
        // SAFETY: the table lives; both slices have `count` elements; the call only reads the addresses, though it does not say so.
        unsafe {
            dpdk_sys::rte_fib6_lookup_bulk(
                self.0.as_ptr(),
                addresses.as_ptr().cast_mut(),
                hops.as_mut_ptr(),
                count as i32,
            );
        }
    }
}

impl Drop for Fib6 {
    fn drop(&mut self) {
        // SAFETY: the table lives and nobody else has it.
        unsafe { dpdk_sys::rte_fib6_free(self.0.as_ptr()) }
    }
}
