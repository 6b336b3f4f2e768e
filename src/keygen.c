/* keygen.c: makes the key files of all programs, the next generation of them, and keys of applications. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/complaint.h"
#include "base/log.h"
#include "base/process.h"
#include "otp/api_key.h"
#include "otp/keys.h"
#include "otp/slug.h"

/* The folders, in the order in which new keys reach them: who writes rows with a key comes last. */
enum place { PLACE_VALIDATE, PLACE_WORKER, PLACE_GENERATE };
#define PLACES 3
#define NUMBER_MAX 32767 /* of a key */

static const char *const place_names[PLACES] = {
    [PLACE_VALIDATE] = "validate",
    [PLACE_WORKER] = "worker",
    [PLACE_GENERATE] = "generate",
};

struct key_folders {
	const char *path; /* of the folder that holds the three */
	int root;
	int place[PLACES];
};

/* folder and file may be NULL. */
static enum result fail(const struct key_folders *folders, const char *folder, const char *file, const char *why)
{
	char place[COMPLAINT_PLACE_BYTES];

	(void)snprintf(place, sizeof(place), "%s%s%s%s%s", folders->path, folder != NULL ? "/" : "",
		       folder != NULL ? folder : "", file != NULL ? "/" : "", file != NULL ? file : "");
	complain(place, "%s", why);
	return RESULT_FAULT;
}

/* --- Folders --- */

static int open_folder(int parent, const char *path)
{
	if (mkdirat(parent, path, 0700) != 0 && errno != EEXIST)
		return -1;
	/* The folder of all may be reached by a link; what is in it, programs may have put there. */
	return openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (parent != AT_FDCWD ? O_NOFOLLOW : 0));
}

static void close_folders(struct key_folders *folders)
{
	for (size_t i = 0; i < PLACES; i++)
		if (folders->place[i] >= 0)
			(void)close(folders->place[i]);
	if (folders->root >= 0)
		(void)close(folders->root);
}

/* Opens the folders, making what is missing, and keeps other runs out until they are closed. */
static enum result open_folders(struct key_folders *folders, const char *path)
{
	folders->path = path;
	for (size_t i = 0; i < PLACES; i++)
		folders->place[i] = -1;
	folders->root = open_folder(AT_FDCWD, path);
	if (folders->root < 0 || flock(folders->root, LOCK_EX) != 0)
		return fail(folders, NULL, NULL, strerror(errno));
	for (size_t i = 0; i < PLACES; i++) {
		folders->place[i] = open_folder(folders->root, place_names[i]);
		if (folders->place[i] < 0)
			return fail(folders, place_names[i], NULL, strerror(errno));
	}
	if (fsync(folders->root) != 0)
		return fail(folders, NULL, NULL, strerror(errno));
	return RESULT_OK;
}

/* The numbers of keys that are there; all 0 if there are none. */
struct numbers {
	short newest, oldest;
	short complete; /* the newest that all kinds have */
};

/* The numbers of the keys of one kind in a folder. */
static enum result find_numbers(const struct key_folders *folders, enum place place, enum key_kind kind,
				struct numbers *numbers)
{
	int copy = openat(folders->place[place], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = copy < 0 ? NULL : fdopendir(copy);
	struct numbers found = {0};

	if (listing == NULL) {
		if (copy >= 0)
			(void)close(copy);
		return fail(folders, place_names[place], NULL, strerror(errno));
	}
	for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
		short number = keys_number(kind, entry->d_name);

		if (number > found.newest)
			found.newest = number;
		if (number != 0 && (found.oldest == 0 || number < found.oldest))
			found.oldest = number;
	}
	(void)closedir(listing);
	*numbers = found;
	return RESULT_OK;
}

/* --- Files --- */

/* Writes the key to the descriptor so that it lies on the disk with its final mode, and its folder's owner if we may
   give files away: a rotation run by root must not make keys that the programs cannot read. */
static bool write_key(int folder, int fd, const unsigned char key[static KEY_BYTES])
{
	struct stat status;
	ssize_t count = write(fd, key, KEY_BYTES);

	if (count >= 0 && count < (ssize_t)KEY_BYTES)
		errno = ENOSPC;
	if (count != (ssize_t)KEY_BYTES || fstat(folder, &status) != 0)
		return false;
	if (geteuid() == 0 && fchown(fd, status.st_uid, status.st_gid) != 0)
		return false;
	return fchmod(fd, 0400) == 0 && fsync(fd) == 0;
}

/* Makes a key file, all or nothing: it gets its name when it is complete and on the disk. */
static enum result put_key(const struct key_folders *folders, enum place place, const char *name,
			   const unsigned char key[static KEY_BYTES])
{
	int folder = folders->place[place];
	char unfinished[KEY_NAME_BYTES + 8];
	bool is_done;
	int fd;

	(void)snprintf(unfinished, sizeof(unfinished), ".%s.new", name);
	(void)unlinkat(folder, unfinished, 0); /* of an interrupted run; nobody else is at work here */
	fd = openat(folder, unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(folders, place_names[place], name, strerror(errno));
	is_done = write_key(folder, fd, key);
	is_done = close(fd) == 0 && is_done;
	is_done = is_done && renameat2(folder, unfinished, folder, name, RENAME_NOREPLACE) == 0 && fsync(folder) == 0;
	if (!is_done) {
		int error = errno;

		(void)unlinkat(folder, unfinished, 0);
		return fail(folders, place_names[place], name, strerror(error));
	}
	(void)printf("made %s/%s/%s\n", folders->path, place_names[place], name);
	return RESULT_OK;
}

/* Reads a key; is_there is false if there is none. Anything else wrong with it is an error. */
static enum result get_key(const struct key_folders *folders, enum place place, const char *name,
			   unsigned char key[static KEY_BYTES], bool *is_there)
{
	const char *reason = NULL;
	enum result result = keys_read_foreign(folders->place[place], name, key, &reason);

	if (result != RESULT_OK && result != RESULT_UNAVAILABLE)
		return fail(folders, place_names[place], name, reason);
	*is_there = result == RESULT_OK;
	return RESULT_OK;
}

static void report_kept(const struct key_folders *folders, enum place place, const char *name)
{
	(void)printf("kept %s/%s/%s\n", folders->path, place_names[place], name);
}

/* --- Keys --- */

/* A key that lies in two folders: as it is in one, or derived from it. */
struct pair {
	enum place first, second; /* made in this order */
	enum key_kind first_kind, second_kind;
	bool is_derived; /* the second is the public half of the first */
};

/* The pairs of a generation. */
static const struct pair pairs[] = {
    {PLACE_VALIDATE, PLACE_GENERATE, KEY_PEPPER, KEY_PEPPER, false},
    {PLACE_WORKER, PLACE_GENERATE, KEY_MAIL_OPEN, KEY_MAIL_SEAL, true},
};

#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

/* Of no generation: people hold tickets for half a year. Who accepts them comes first. */
static const struct pair ticket_pair = {PLACE_GENERATE, PLACE_VALIDATE, KEY_TICKET, KEY_TICKET, false};

static bool derive(const struct pair *pair, unsigned char second[static KEY_BYTES],
		   const unsigned char first[static KEY_BYTES])
{
	if (pair->is_derived)
		return crypto_scalarmult_base(second, first) == 0;
	memcpy(second, first, KEY_BYTES);
	return true;
}

/* Finds the first half: its file, else what the second tells, else at random. */
static enum result find_first(const struct key_folders *folders, const struct pair *pair, const char *names[2],
			      unsigned char first[static KEY_BYTES], bool is_there[2])
{
	unsigned char second[KEY_BYTES];
	enum result result = get_key(folders, pair->first, names[0], first, &is_there[0]);

	if (result == RESULT_OK)
		result = get_key(folders, pair->second, names[1], second, &is_there[1]);
	if (result == RESULT_OK && !is_there[0]) {
		if (is_there[1] && pair->is_derived)
			result = fail(folders, place_names[pair->first], names[0],
				      "is missing while its public half exists: restore it, or move that one away");
		else if (is_there[1])
			memcpy(first, second, sizeof(second));
		else
			process_random(first, KEY_BYTES);
	}
	sodium_memzero(second, sizeof(second));
	return result;
}

/* Makes one half of a pair if it is missing, and says what was done. */
static enum result put_half(const struct key_folders *folders, enum place place, const char *name,
			    const unsigned char key[static KEY_BYTES], bool is_there)
{
	if (!is_there)
		return put_key(folders, place, name, key);
	report_kept(folders, place, name);
	return RESULT_OK;
}

/* What the second half must be, checked against its file if there is one. */
static enum result find_second(const struct key_folders *folders, const struct pair *pair, const char *names[2],
			       const unsigned char first[static KEY_BYTES], unsigned char second[static KEY_BYTES])
{
	unsigned char found[KEY_BYTES];
	bool is_there = false;
	enum result result;

	if (!derive(pair, second, first))
		return fail(folders, place_names[pair->first], names[0], "is no usable key");
	result = get_key(folders, pair->second, names[1], found, &is_there);
	if (result == RESULT_OK && is_there && memcmp(second, found, sizeof(found)) != 0)
		result = fail(folders, place_names[pair->second], names[1],
			      "does not belong to its counterpart: restore the right one, or move both away");
	sodium_memzero(found, sizeof(found));
	return result;
}

/* Makes what is missing of the pair of that number, and checks that its halves belong together. */
static enum result complete_pair(const struct key_folders *folders, const struct pair *pair, short number)
{
	unsigned char first[KEY_BYTES], second[KEY_BYTES];
	char first_name[KEY_NAME_BYTES], second_name[KEY_NAME_BYTES];
	const char *names[2] = {first_name, second_name};
	bool is_there[2] = {false, false};
	enum result result;

	keys_name(pair->first_kind, number, first_name);
	keys_name(pair->second_kind, number, second_name);
	result = find_first(folders, pair, names, first, is_there);
	if (result == RESULT_OK)
		result = find_second(folders, pair, names, first, second);
	if (result == RESULT_OK)
		result = put_half(folders, pair->first, first_name, first, is_there[0]);
	if (result == RESULT_OK)
		result = put_half(folders, pair->second, second_name, second, is_there[1]);
	sodium_memzero(first, sizeof(first));
	sodium_memzero(second, sizeof(second));
	return result;
}

/* Adds the numbers that one half of a pair has to those of others. */
static enum result add_numbers(const struct key_folders *folders, enum place place, enum key_kind kind,
			       struct numbers *all)
{
	struct numbers found = {0};
	enum result result = find_numbers(folders, place, kind, &found);

	if (result != RESULT_OK)
		return result;
	if (found.newest > all->newest)
		all->newest = found.newest;
	if (found.oldest != 0 && (all->oldest == 0 || found.oldest < all->oldest))
		all->oldest = found.oldest;
	if (found.newest < all->complete)
		all->complete = found.newest;
	return RESULT_OK;
}

/* The numbers that the pairs have in any folder. */
static enum result find_pairs(const struct key_folders *folders, const struct pair *of, size_t count,
			      struct numbers *numbers)
{
	enum result result = RESULT_OK;

	*numbers = (struct numbers){.complete = NUMBER_MAX};
	for (size_t i = 0; i < count && result == RESULT_OK; i++) {
		result = add_numbers(folders, of[i].first, of[i].first_kind, numbers);
		if (result == RESULT_OK)
			result = add_numbers(folders, of[i].second, of[i].second_kind, numbers);
	}
	return result;
}

/* Programs know the newest two generations. While an older one has files, codes that were made under it may be live:
   who removes them says that none is. */
static enum result check_rotation(const struct key_folders *folders, const struct numbers *generations, bool is_forced)
{
	char why[256];

	if (generations->newest == 0)
		return fail(folders, NULL, NULL, "holds no keys yet: run otp-keygen without --rotate first");
	if (generations->oldest == generations->newest || is_forced)
		return RESULT_OK;
	(void)snprintf(why, sizeof(why),
		       "still holds keys of generation %d, and codes made under them may be live: remove them when "
		       "EXPIRE_MINUTES have passed since generation %d came into use, or add --force",
		       generations->oldest, generations->newest);
	return fail(folders, NULL, NULL, why);
}

/* Makes what is missing of the newest ticket key. */
static enum result make_ticket_key(const struct key_folders *folders)
{
	struct numbers numbers;
	enum result result = find_pairs(folders, &ticket_pair, 1, &numbers);

	if (result == RESULT_OK)
		result = complete_pair(folders, &ticket_pair, numbers.newest > 0 ? numbers.newest : 1);
	return result;
}

/* A run that was interrupted left a generation incomplete: the next run, rotating or not, completes that one. */
static enum result make_keys(const struct key_folders *folders, bool is_rotation, bool is_forced)
{
	struct numbers generations;
	enum result result = find_pairs(folders, pairs, PAIRS, &generations);
	bool is_complete = result == RESULT_OK && generations.complete == generations.newest;
	short number;

	if (result == RESULT_OK && is_rotation && is_complete)
		result = check_rotation(folders, &generations, is_forced);
	if (result != RESULT_OK)
		return result;
	number = generations.newest;
	if (number == 0 || (is_rotation && is_complete)) {
		if (number == NUMBER_MAX)
			return fail(folders, NULL, NULL, "the numbers of keys are used up");
		number++;
	}
	result = make_ticket_key(folders);
	for (size_t i = 0; i < PAIRS && result == RESULT_OK; i++)
		result = complete_pair(folders, &pairs[i], number);
	return result;
}

/* --- Keys of applications --- */

/* Prints a new key, which nobody can tell again, and what the applications' file holds of it. */
static enum result print_api_key(const char *application)
{
	char key[API_KEY_TEXT + 1], hash_text[API_KEY_HASH_TEXT + 1];
	unsigned char hash[API_KEY_HASH_BYTES];
	enum result result;

	if (!slug_is(application, strlen(application))) {
		complain(application,
			 "must be the application's name in APPLICATIONS: 1 to %u characters of a to z, "
			 "0 to 9 and \"-\"",
			 SLUG_MAX);
		return RESULT_INVALID;
	}
	api_key_make(key, process_random);
	result = api_key_hash(hash, key, API_KEY_TEXT);
	if (result == RESULT_OK) {
		api_key_hash_write(hash, hash_text);
		(void)printf("%s\n\"%s\": {\"key_hashes\": [\"%s\"]}\n", key, application, hash_text);
	}
	sodium_memzero(key, sizeof(key));
	return result;
}

/* --- Arguments --- */

static void print_help(FILE *out)
{
	(void)fprintf(out, "otp-keygen: makes the key files of otp-generate, otp-validate and otp-worker.\n\n"
			   "Usage: otp-keygen [--rotate [--force]] DIR\n"
			   "       otp-keygen --api-key NAME\n"
			   "  --rotate   make the next generation; programs accept the newest and the one before\n"
			   "  --force    with --rotate: also while an older generation has files\n"
			   "  --api-key  print a new key for the application of that name, and its hash for\n"
			   "             the file that APPLICATIONS names; nothing is written\n"
			   "  --help     print this text\n"
			   "  --version  print the version\n\n"
			   "DIR gets three folders, one as the KEY_DIR of each program:\n"
			   "  DIR/generate  pepper-N, mail-N.pub and ticket-N\n"
			   "  DIR/validate  pepper-N and ticket-N\n"
			   "  DIR/worker    mail-N.key\n"
			   "Existing keys are kept; run it again after an interruption. A ticket key is made\n"
			   "only if there is none: people hold tickets for half a year.\n");
}

/* Makes the keys in a folder. */
static enum result fill_folder(const char *path, bool is_rotation, bool is_forced)
{
	struct key_folders folders;
	enum result result = open_folders(&folders, path);

	if (result == RESULT_OK)
		result = make_keys(&folders, is_rotation, is_forced);
	close_folders(&folders);
	return result;
}

int main(int argc, char **argv)
{
	bool is_rotation = argc > 2 && strcmp(argv[1], "--rotate") == 0;
	bool is_forced = is_rotation && argc == 4 && strcmp(argv[2], "--force") == 0;
	bool is_api_key = argc == 3 && strcmp(argv[1], "--api-key") == 0;
	const char *object = argc > 1 ? argv[argc - 1] : ""; /* a path, or a name */
	enum result result;

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--version") == 0)) {
		if (argv[1][2] == 'h')
			print_help(stdout);
		else
			(void)printf("otp-keygen %s\n", PACKAGE_VERSION);
		return fflush(stdout) == 0 ? 0 : 1;
	}
	if (argc != 2 + is_rotation + is_forced + is_api_key || object[0] == '\0' ||
	    (object[0] == '-' && !is_api_key)) {
		print_help(stderr);
		return 2;
	}
	complaint_start("otp-keygen");
	log_start("otp-keygen", LOG_INFO);
	if (process_start() != RESULT_OK)
		return 1;
	result = is_api_key ? print_api_key(object) : fill_folder(object, is_rotation, is_forced);
	if (result == RESULT_INVALID)
		return 2;
	return result == RESULT_OK && fflush(stdout) == 0 ? 0 : 1;
}
