/* libexpat, the system's parser of XML: so that it is kept up to date with it. */
#ifndef PASSHSM_CEXPAT_H
#define PASSHSM_CEXPAT_H
#include <expat.h>
#endif
