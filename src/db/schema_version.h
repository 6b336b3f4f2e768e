/* schema_version.h: the version of the database's functions that the programs need, as otp.schema_version returns it. */
#ifndef OTP_SCHEMA_VERSION_H
#define OTP_SCHEMA_VERSION_H

#define DB_SCHEMA_VERSION 1

#endif
