/* SPDX-License-Identifier: Apache-2.0 */
#include "fault_vfs.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, IMAGES_MAX = 8, OPERATIONS_MAX = 100000 };

struct fault_plan fault_plan;
static uint64_t counted;
static char recorded[256]; /* the folder; "" for none */
static sqlite3_vfs *real_vfs;

struct operation {
	sqlite3_int64 offset; /* or the size after a truncation */
	size_t length;
	uint8_t *bytes; /* NULL: a truncation */
};

/* A file as the disk is known to have it, and what has been done since its last sync. */
struct image {
	char path[512];
	uint8_t *bytes;
	size_t size;
	struct operation *operations;
	size_t operation_count;
};

static struct image images[IMAGES_MAX];

struct fault_file {
	sqlite3_file file;
	struct image *image; /* NULL: not recorded */
	sqlite3_file *real;
};

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct fault_file *)file)->real;
}

static bool fails(enum fault_operation operation)
{
	if (!(fault_plan.operations & operation))
		return false;
	counted++;
	return fault_plan.at && counted >= fault_plan.at && counted - fault_plan.at < fault_plan.count;
}

static void announce(void)
{
	if (fault_plan.before)
		fault_plan.before(fault_plan.arg);
}

/* Images */

static void image_put(uint8_t **bytes, size_t *size, size_t offset, const uint8_t *from, size_t length)
{
	if (offset + length > *size) {
		*bytes = realloc(*bytes, offset + length);
		memset(*bytes + *size, 0, offset + length - *size);
		*size = offset + length;
	}
	memcpy(*bytes + offset, from, length);
}

static void image_apply(uint8_t **bytes, size_t *size, const struct operation *o)
{
	if (o->bytes)
		image_put(bytes, size, (size_t)o->offset, o->bytes, o->length);
	else
		*size = MIN(*size, (size_t)o->offset);
}

static void image_forget(struct image *image)
{
	for (size_t i = 0; i < image->operation_count; i++)
		free(image->operations[i].bytes);
	image->operation_count = 0;
}

static void image_sync(struct image *image)
{
	for (size_t i = 0; i < image->operation_count; i++)
		image_apply(&image->bytes, &image->size, &image->operations[i]);
	image_forget(image);
}

static void image_note(struct image *image, sqlite3_int64 offset, const void *bytes, size_t length)
{
	struct operation *o;

	if (!image)
		return;
	assert_true(image->operation_count < OPERATIONS_MAX);
	if (!image->operations)
		image->operations = calloc(OPERATIONS_MAX, sizeof(*image->operations));
	o = &image->operations[image->operation_count++];
	*o = (struct operation){ .offset = offset, .length = length };
	if (bytes) {
		o->bytes = malloc(length + 1);
		memcpy(o->bytes, bytes, length);
	}
}

static struct image *image_of(const char *path, bool make)
{
	for (size_t i = 0; i < IMAGES_MAX; i++) {
		if (strcmp(images[i].path, path) == 0)
			return &images[i];
	}
	for (size_t i = 0; i < IMAGES_MAX && make; i++) {
		if (!images[i].path[0]) {
			snprintf(images[i].path, sizeof(images[i].path), "%s", path);
			return &images[i];
		}
	}
	assert_false(make);
	return NULL;
}

static void image_free(struct image *image)
{
	image_forget(image);
	free(image->operations);
	free(image->bytes);
	*image = (struct image){ 0 };
}

/* Methods of a file */

static int fault_close(sqlite3_file *file)
{
	int rc = real_of(file)->pMethods->xClose(real_of(file));

	free(real_of(file));
	return rc;
}

static int fault_read(sqlite3_file *file, void *bytes, int length, sqlite3_int64 offset)
{
	if (fails(FAULT_READ))
		return SQLITE_IOERR_READ;
	return real_of(file)->pMethods->xRead(real_of(file), bytes, length, offset);
}

static int real_write(sqlite3_file *file, const void *bytes, int length, sqlite3_int64 offset)
{
	int rc = length ? real_of(file)->pMethods->xWrite(real_of(file), bytes, length, offset) : SQLITE_OK;

	if (rc == SQLITE_OK)
		image_note(((struct fault_file *)file)->image, offset, bytes, (size_t)length);
	return rc;
}

static int fault_write(sqlite3_file *file, const void *bytes, int length, sqlite3_int64 offset)
{
	sqlite3_int64 size = 0, growth;
	int rc = SQLITE_OK;

	announce();
	if (fails(FAULT_WRITE)) {
		if (fault_plan.torn)
			rc = real_write(file, bytes, length / 2, offset);
		return rc != SQLITE_OK ? rc : fault_plan.full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	}
	if (fault_plan.bounded) {
		rc = real_of(file)->pMethods->xFileSize(real_of(file), &size);
		if (rc != SQLITE_OK)
			return rc;
		growth = MAX(offset + length - size, 0);
		if ((uint64_t)growth > fault_plan.room_bytes) {
			/* as much as there is room for, as a file system does */
			int part = length - (int)((uint64_t)growth - fault_plan.room_bytes);

			rc = part > 0 ? real_write(file, bytes, part, offset) : SQLITE_OK;
			fault_plan.room_bytes = 0;
			return rc == SQLITE_OK ? SQLITE_FULL : rc;
		}
		fault_plan.room_bytes -= (uint64_t)growth;
	}
	return real_write(file, bytes, length, offset);
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	int rc;

	announce();
	if (fails(FAULT_TRUNCATE))
		return SQLITE_IOERR_TRUNCATE;
	rc = real_of(file)->pMethods->xTruncate(real_of(file), size);
	if (rc == SQLITE_OK)
		image_note(((struct fault_file *)file)->image, size, NULL, 0);
	return rc;
}

static int fault_sync(sqlite3_file *file, int flags)
{
	struct image *image = ((struct fault_file *)file)->image;

	(void)flags;
	announce();
	if (fails(FAULT_SYNC))
		return SQLITE_IOERR_FSYNC;
	/* what a crash of the machine would leave is kept in the images, so nothing has to wait for the disk */
	if (image)
		image_sync(image);
	return SQLITE_OK;
}

static int fault_file_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), ret_size);
}

static int fault_lock(sqlite3_file *file, int lock)
{
	return real_of(file)->pMethods->xLock(real_of(file), lock);
}

static int fault_unlock(sqlite3_file *file, int lock)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), lock);
}

static int fault_check_reserved(sqlite3_file *file, int *ret_out)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), ret_out);
}

static int fault_control(sqlite3_file *file, int op, void *arg)
{
	return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int fault_sector_size(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int fault_characteristics(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int fault_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret_at)
{
	if (fails(FAULT_SHM))
		return SQLITE_IOERR_SHMMAP;
	return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, ret_at);
}

static int fault_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void fault_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int fault_shm_unmap(sqlite3_file *file, int delete)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = fault_close,
	.xRead = fault_read,
	.xWrite = fault_write,
	.xTruncate = fault_truncate,
	.xSync = fault_sync,
	.xFileSize = fault_file_size,
	.xLock = fault_lock,
	.xUnlock = fault_unlock,
	.xCheckReservedLock = fault_check_reserved,
	.xFileControl = fault_control,
	.xSectorSize = fault_sector_size,
	.xDeviceCharacteristics = fault_characteristics,
	.xShmMap = fault_shm_map,
	.xShmLock = fault_shm_lock,
	.xShmBarrier = fault_shm_barrier,
	.xShmUnmap = fault_shm_unmap,
};

static void load_image(struct fault_file *f, const char *path)
{
	sqlite3_int64 size = 0;
	struct image *image = image_of(path, true);

	f->image = image;
	if (image->bytes)
		return;
	assert_int_equal(f->real->pMethods->xFileSize(f->real, &size), SQLITE_OK);
	image->size = (size_t)size;
	image->bytes = calloc(1, image->size + 1);
	if (size)
		assert_int_equal(f->real->pMethods->xRead(f->real, image->bytes, (int)size, 0), SQLITE_OK);
}

static int fault_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
	struct fault_file *f = (struct fault_file *)file;
	int rc;

	(void)vfs;
	memset(f, 0, sizeof(*f));
	if (fails(FAULT_OPEN))
		return SQLITE_CANTOPEN;
	f->real = calloc(1, (size_t)real_vfs->szOsFile);
	rc = real_vfs->xOpen(real_vfs, path, f->real, flags, ret_flags);
	if (rc != SQLITE_OK) {
		free(f->real);
		return rc;
	}
	f->file.pMethods = &methods;
	if (recorded[0] && path && strncmp(path, recorded, strlen(recorded)) == 0 &&
		(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)))
		load_image(f, path);
	return SQLITE_OK;
}

static int fault_delete(sqlite3_vfs *vfs, const char *path, int sync_folder)
{
	struct image *image = image_of(path, false);
	int rc;

	(void)vfs;
	if (fails(FAULT_OPEN))
		return SQLITE_IOERR_DELETE;
	rc = real_vfs->xDelete(real_vfs, path, sync_folder);
	if (rc == SQLITE_OK && image)
		image_free(image);
	return rc;
}

static int fault_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret_out)
{
	(void)vfs;
	if (fails(FAULT_OPEN))
		return SQLITE_IOERR_ACCESS;
	return real_vfs->xAccess(real_vfs, path, flags, ret_out);
}

void fault_vfs_register(void)
{
	static sqlite3_vfs vfs;

	if (real_vfs)
		return;
	real_vfs = sqlite3_vfs_find(NULL);
	vfs = *real_vfs;
	vfs.pNext = NULL;
	vfs.zName = FAULT_VFS;
	vfs.szOsFile = sizeof(struct fault_file);
	vfs.xOpen = fault_open;
	vfs.xDelete = fault_delete;
	vfs.xAccess = fault_access;
	assert_int_equal(sqlite3_vfs_register(&vfs, 0), SQLITE_OK);
}

void fault_set(const struct fault_plan *plan)
{
	fault_plan = *plan;
	counted = 0;
}

uint64_t fault_counted(void)
{
	return counted;
}

void fault_record(const char *folder)
{
	snprintf(recorded, sizeof(recorded), "%s", folder);
	for (size_t i = 0; i < IMAGES_MAX; i++)
		image_free(&images[i]);
}

static void tear(uint8_t **bytes, size_t *size, const struct operation *o, struct test_random *random)
{
	for (size_t at = 0; at < o->length;) {
		/* up to the next border of a sector of the file */
		size_t n = MIN(o->length - at, SECTOR - ((size_t)o->offset + at) % SECTOR);

		if (test_below(random, 2))
			image_put(bytes, size, (size_t)o->offset + at, o->bytes + at, n);
		at += n;
	}
}

static void cut_image(const struct image *image, const char *folder, struct test_random *random)
{
	const char *name = strrchr(image->path, '/') + 1;
	uint8_t *bytes = malloc(image->size + 1);
	size_t size = image->size;
	char path[512];
	FILE *out;

	memcpy(bytes, image->bytes, size);
	for (size_t i = 0; i < image->operation_count; i++) {
		const struct operation *o = &image->operations[i];
		uint32_t fate = test_below(random, 3);

		if (fate == 0 || (fate == 1 && !o->bytes))
			image_apply(&bytes, &size, o);
		else if (fate == 1)
			tear(&bytes, &size, o, random);
	}
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, size, out), size);
	assert_int_equal(fclose(out), 0);
	free(bytes);
}

void fault_power_cut(const char *folder, struct test_random *random)
{
	for (size_t i = 0; i < IMAGES_MAX; i++) {
		if (images[i].path[0])
			cut_image(&images[i], folder, random);
	}
}
