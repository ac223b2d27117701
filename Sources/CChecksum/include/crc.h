/* Cyclic redundancy checks, in C because Swift cannot reach the processor's instruction. Each continues `crc` (0 to
 * begin) over `length` bytes, and may be called on any thread. */
#ifndef PASSHSM_CRC_H
#define PASSHSM_CRC_H
#include <stddef.h>
#include <stdint.h>

/* CRC32C (Castagnoli, RFC 3720 appendix B.4): by SSE 4.2 or the ARMv8 CRC extension where the processor has it. */
uint32_t passhsm_crc32c(uint32_t crc, const void *bytes, size_t length);

/* CRC32C of two parts together, from those of each: `power` is passhsm_crc32c_power of the second part's length. */
uint32_t passhsm_crc32c_combine(uint32_t first, uint32_t second, uint32_t power);

/* What a CRC32C is multiplied by when `length` bytes follow. */
uint32_t passhsm_crc32c_power(uint64_t length);

/* CRC32 (RFC 1952 section 8, zlib's). */
uint32_t passhsm_crc32(uint32_t crc, const void *bytes, size_t length);

/* CRC64NVME (NVM Express NVM command set specification 1.0d, section 5.2.1.3.4), as S3 gives it. */
uint64_t passhsm_crc64nvme(uint64_t crc, const void *bytes, size_t length);

#endif
