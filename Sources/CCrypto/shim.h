/* libcrypto's message digests: the system's, so that it is kept up to date with it, and uses what the processor has. */
#ifndef PASSHSM_CCRYPTO_H
#define PASSHSM_CCRYPTO_H
#include <openssl/evp.h>
#endif
