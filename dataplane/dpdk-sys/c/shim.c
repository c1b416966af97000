#include "dpdk.h"

int nave_rte_errno(void)
{
	return rte_errno;
}

int nave_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void nave_pktmbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int nave_pktmbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

void nave_mempool_cache_flush(struct rte_mempool *pool)
{
	rte_mempool_cache_flush(NULL, pool);
}

unsigned int nave_ring_enqueue_burst(struct rte_ring *ring, void *const *objects, unsigned int count)
{
	return rte_ring_enqueue_burst(ring, objects, count, NULL);
}

unsigned int nave_ring_dequeue_burst(struct rte_ring *ring, void **objects, unsigned int count)
{
	return rte_ring_dequeue_burst(ring, objects, count, NULL);
}

void nave_lpm_lookup_each(const struct rte_lpm *lpm, const uint32_t *addresses, uint32_t *words, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		uint32_t hop;
		uint32_t found = rte_lpm_lookup(lpm, addresses[i], &hop) == 0 ? RTE_LPM_LOOKUP_SUCCESS : 0;

		words[i] = hop | found;
	}
}

void nave_lpm_lookup_bulk(const struct rte_lpm *lpm, const uint32_t *addresses, uint32_t *words, unsigned int count)
{
	rte_lpm_lookup_bulk(lpm, addresses, words, count);
}
