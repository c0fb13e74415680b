/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay DIRECTORY - feeds every file of a corpus to a fuzz target, so that it is a unit test for any
 * compiler. A crash is the failure; the name of the input that caused it stands in the last line.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* In memory of its own size, so that a read behind the end is noticed. */
static bool feed(const char *path)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	uint8_t *bytes;
	size_t length;

	if (!f || fstat(fileno(f), &st) < 0) {
		perror(path);
		return false;
	}
	length = (size_t)st.st_size;
	bytes = malloc(length ? length : 1);
	if (!bytes || fread(bytes, 1, length, f) != length) {
		perror(path);
		return false;
	}
	fclose(f);
	printf("%s, %zu bytes\n", path, length);
	fflush(stdout);
	LLVMFuzzerTestOneInput(bytes, length);
	free(bytes);
	return true;
}

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

int main(int argc, char **argv)
{
	struct dirent **files;
	int n;

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	n = scandir(argv[1], &files, visible, alphasort);
	if (n <= 0) {
		fprintf(stderr, "%s: no inputs\n", argv[1]);
		return 1;
	}
	for (int i = 0; i < n; i++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", argv[1], files[i]->d_name);
		if (!feed(path))
			return 1;
		free(files[i]);
	}
	free(files);
	printf("[       OK ] replay of %d inputs of %s\n", n, argv[1]);
	return 0;
}
