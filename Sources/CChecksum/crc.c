#include "crc.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

/* Of 8 bytes at once ("slicing by 8"), for any reflected polynomial of up to 64 bits: byte n of a word has its own row,
 * which takes in that 7 - n bytes follow it. */
struct table {
    uint64_t polynomial;
    uint64_t rows[8][256];
};

static struct table castagnoli = {.polynomial = 0x82f63b78u};
static struct table iso_hdlc = {.polynomial = 0xedb88320u};
static struct table nvme = {.polynomial = 0x9a6c9329ac4bc9b5u};

static void fill(struct table *table)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint64_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (table->polynomial & -(crc & 1));
        table->rows[0][byte] = crc;
    }
    for (unsigned row = 1; row < 8; row++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint64_t crc = table->rows[row - 1][byte];
            table->rows[row][byte] = crc >> 8 ^ table->rows[0][crc & 0xff];
        }
}

static void fill_all(void)
{
    fill(&castagnoli);
    fill(&iso_hdlc);
    fill(&nvme);
}

static uint64_t by_table(const struct table *table, uint64_t crc, const uint8_t *p, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_all);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word = le64toh(word) ^ crc;
        crc = 0;
        for (int byte = 0; byte < 8; byte++)
            crc ^= table->rows[7 - byte][word >> 8 * byte & 0xff];
    }
    for (; n; n--)
        crc = crc >> 8 ^ table->rows[0][(crc ^ *p++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t hardware(uint32_t crc, const uint8_t *p, size_t n)
{
    uint64_t wide = crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n; n--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

static int has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

static uint32_t hardware(uint32_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    for (; n; n--)
        crc = __crc32cb(crc, *p++);
    return crc;
}

static int has_hardware(void) { return 1; }
#else
static uint32_t hardware(uint32_t crc, const uint8_t *p, size_t n) { return crc; }
static int has_hardware(void) { return 0; }
#endif

uint32_t passhsm_crc32c(uint32_t crc, const void *bytes, size_t length)
{
    if (has_hardware())
        return ~hardware(~crc, bytes, length);
    return ~(uint32_t)by_table(&castagnoli, ~crc, bytes, length);
}

uint32_t passhsm_crc32(uint32_t crc, const void *bytes, size_t length)
{
    return ~(uint32_t)by_table(&iso_hdlc, ~crc, bytes, length);
}

uint64_t passhsm_crc64nvme(uint64_t crc, const void *bytes, size_t length)
{
    return ~by_table(&nvme, ~crc, bytes, length);
}

/* The product of two polynomials modulo CRC32C's; the highest bit is that of x^0. */
static uint32_t product(uint32_t a, uint32_t b)
{
    uint32_t sum = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            sum ^= b;
        b = b >> 1 ^ (0x82f63b78u & -(b & 1));
    }
    return sum;
}

uint32_t passhsm_crc32c_power(uint64_t length)
{
    uint32_t power = 1u << 31;
    /* x^8 for each byte, by squaring. */
    for (uint32_t square = 1u << 23; length; length >>= 1, square = product(square, square))
        if (length & 1)
            power = product(power, square);
    return power;
}

uint32_t passhsm_crc32c_combine(uint32_t first, uint32_t second, uint32_t power)
{
    return product(first, power) ^ second;
}
