/* The part of libdpdk that Nave uses: what bindgen reads. Functions that DPDK defines inline are at the end, as
 * ordinary functions (shim.c); rx and tx bursts are not among them: Rust calls the driver through rte_eth_fp_ops. */
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_lpm.h>
#include <rte_lpm6.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* Constants that DPDK writes as casts, which bindgen does not evaluate. */
static const uint64_t NAVE_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t NAVE_RX_IPV4_CHECKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t NAVE_RX_SECURITY = RTE_ETH_RX_OFFLOAD_SECURITY;
static const uint64_t NAVE_TX_IPV4_CHECKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t NAVE_TX_MULTI_SEGMENT = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t NAVE_TX_SECURITY = RTE_ETH_TX_OFFLOAD_SECURITY;
static const uint64_t NAVE_RSS_TUNNELS_AND_FLOWS = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_ESP;

/* What a received mbuf says of the checksum of its IPv4 header: good is one of these bits alone. */
static const uint64_t NAVE_MBUF_IPV4 = RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD;
static const uint64_t NAVE_MBUF_IPV4_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;

/* rte_errno of the calling thread: a thread-local variable, which Rust cannot name. */
int nave_rte_errno(void);

/* `count` mbufs from `pool`, reset, or none of them: 0 or -ENOENT. */
int nave_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);

/* Gives a chain of segments back to its pools. */
void nave_pktmbuf_free(struct rte_mbuf *mbuf);

/* Moves the bytes of all segments into the first: 0, or -1 without the tailroom. */
int nave_pktmbuf_linearize(struct rte_mbuf *mbuf);

/* Gives the calling thread's cache of `pool` back to the pool. */
void nave_mempool_cache_flush(struct rte_mempool *pool);

/* Enqueues or dequeues up to `count` pointers; how many it was. */
unsigned int nave_ring_enqueue_burst(struct rte_ring *ring, void *const *objects, unsigned int count);
unsigned int nave_ring_dequeue_burst(struct rte_ring *ring, void **objects, unsigned int count);

/* Looks up `count` addresses (host byte order), each after the other or by DPDK's own bulk function. A word is the next hop,
 * with RTE_LPM_LOOKUP_SUCCESS if there is a route. */
void nave_lpm_lookup_each(const struct rte_lpm *lpm, const uint32_t *addresses, uint32_t *words, unsigned int count);
void nave_lpm_lookup_bulk(const struct rte_lpm *lpm, const uint32_t *addresses, uint32_t *words, unsigned int count);
