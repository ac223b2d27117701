/* CRC32C (Castagnoli, RFC 3720 appendix B.4). In C because Swift cannot reach the processor's instruction. */
#ifndef PASSHSM_CRC32C_H
#define PASSHSM_CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin) over `length` bytes; uses SSE 4.2 or the ARMv8 CRC extension where the processor has
 * it, else bit by bit. */
uint32_t passhsm_crc32c(uint32_t crc, const void *bytes, size_t length);

#endif
