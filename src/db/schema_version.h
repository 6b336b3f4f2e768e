/* schema_version.h: the oldest version of schema otp that these programs work with; see otp.schema_version in sql/. */
#ifndef OTP_SCHEMA_VERSION_H
#define OTP_SCHEMA_VERSION_H

#define DB_SCHEMA_VERSION 1

#endif
