/* The part of libdpdk that Nave uses: what bindgen reads. Functions that DPDK defines inline are at the end, as
 * ordinary functions (shim.c); rx and tx bursts are not among them: Rust calls the driver through rte_eth_fp_ops. */
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* rte_errno of the calling thread: a thread-local variable, which Rust cannot name. */
int nave_rte_errno(void);

/* `count` mbufs from `pool`, reset, or none of them: 0 or -ENOENT. */
int nave_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);

/* Gives a chain of segments back to its pools. */
void nave_pktmbuf_free(struct rte_mbuf *mbuf);

/* Gives `count` direct, unshared, single-segment mbufs of `pool` back to it: what one worker's burst mostly is. */
void nave_pktmbuf_free_bulk(struct rte_mbuf **mbufs, unsigned int count);

/* Moves the bytes of all segments into the first: 0, or -1 without the tailroom. */
int nave_pktmbuf_linearize(struct rte_mbuf *mbuf);

/* Gives the calling thread's cache of `pool` back to the pool. */
void nave_mempool_cache_flush(struct rte_mempool *pool);

/* Enqueues or dequeues up to `count` pointers; how many it was. */
unsigned int nave_ring_enqueue_burst(struct rte_ring *ring, void *const *objects, unsigned int count);
unsigned int nave_ring_dequeue_burst(struct rte_ring *ring, void **objects, unsigned int count);
