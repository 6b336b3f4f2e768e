/* fuzz_template.c: whatever a folder of templates holds, it is refused with the file's name, or makes mails that are
 * in form. The input: mail.txt, mail.html, subject.txt, heading.txt and date.txt, each ending with a byte FF. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/complaint.h"
#include "fuzz.h"
#include "mail.h"

static char folder[64];

static void remove_folder(void)
{
	static const char *const names[] = {
	    "/en/mail.txt", "/en/mail.html", "/en/subject.txt", "/en/heading.txt", "/en/date.txt", "/en", ""};
	char path[128];
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", folder, names[i]);
		(void)remove(path);
	}
}

static void make_folder(void)
{
	char path[128];
	(void)snprintf(folder, sizeof(folder), "/dev/shm/otp-fuzz-XXXXXX");
	FUZZ_ASSERT(mkdtemp(folder) != NULL);
	(void)snprintf(path, sizeof(path), "%s/en", folder);
	FUZZ_ASSERT(mkdir(path, 0700) == 0);
	(void)atexit(remove_folder);
}

static void write_file(const char *name, struct fuzz_input *input, bool is_optional)
{
	static char text[20000]; /* more than a template may have */
	char path[128];
	size_t length = fuzz_text(input, '\xFF', text, sizeof(text));
	(void)snprintf(path, sizeof(path), "%s/en/%s", folder, name);
	(void)unlink(path);
	if (is_optional && length == 0)
		return;
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	FUZZ_ASSERT(fd >= 0 && write(fd, text, length) == (ssize_t)length);
	(void)close(fd);
}

/* "fuzz: FOLDER/en/FILE:LINE: reason", or of the folder as a whole. */
static void check_line(const char *line)
{
	FUZZ_ASSERT(strncmp(line, "fuzz: ", 6) == 0 && strncmp(line + 6, folder, strlen(folder)) == 0 &&
		    strstr(line + 6, ": ") != NULL);
}

static struct composers *compose(void)
{
	static char said[65536];
	struct settings settings = {.applications = "",
				    .app_name = "An Example",
				    .email_subject = "{{app_name}}",
				    .email_from = {.name = "An Example", .address = "otp@example.org"},
				    .template_dir = folder};
	FILE *kept = stderr;
	stderr = fmemopen(said, sizeof(said), "w");
	complaint_start("fuzz");
	struct composers *composers = mail_compose(&settings);
	(void)fclose(stderr);
	stderr = kept;
	FUZZ_ASSERT((composers != NULL) == (said[0] == '\0'));
	for (char *line = strtok(said, "\n"); line != NULL; line = strtok(NULL, "\n"))
		check_line(line);
	memset(said, 0, sizeof(said));
	return composers;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	if (folder[0] == '\0')
		make_folder();
	write_file("mail.txt", &input, false);
	write_file("mail.html", &input, false);
	write_file("subject.txt", &input, true);
	write_file("heading.txt", &input, true);
	write_file("date.txt", &input, true);
	struct composers *composers = compose();
	if (composers != NULL)
		FUZZ_ASSERT(strstr(mail_build_and_check(composers, "jane@example.com", NULL), "{{") == NULL);
	composers_free(composers);
	return 0;
}
