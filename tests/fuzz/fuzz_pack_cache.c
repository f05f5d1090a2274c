/* Any bytes as a file of packed weights: it is refused, or what is mapped has the size and the checksum that
 * its header tells. The first byte chooses: the rest is the file; or the rest is patches to a good file, each
 * a place in 16 bits, a length and as many bytes, after which the header's checksum is made right or not. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/model/pack_cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* As pack_cache.c writes it: numbers in the header, then the weights. */
enum { WEIGHTS = 192, PAGE = 4096, SUMMED = 64, CHECKSUM_AT = 56, FILE_BYTES = PAGE + WEIGHTS };

static void require(int holds)
{
    if (!holds)
        abort();
}

static bool never(void)
{
    return false;
}

static struct {
    struct model_options options;
    struct pool *pool;
    struct pack_cache *cache;
    uint8_t weights[WEIGHTS];
    char *path;
    uint8_t good[FILE_BYTES];
} subject;

/* The only file of the folder. */
static char *find_file(const char *folder)
{
    char *path = NULL;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            require(!path);
            path = xasprintf("%s/%s", folder, e->d_name);
        }
    require(path && !closedir(d));
    return path;
}

static void remove_all(void)
{
    unlink(subject.path);
    rmdir(subject.options.cache_folder);
}

/* A model that is nothing but a source, and its good file. */
static void begin(void)
{
    static const char file[] = "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    static char folder[] = "/tmp/woolly-fuzz-cache-XXXXXX";
    static struct model model;
    struct error err;

    log_init("fuzz", LOG_ERROR);
    require(mkdtemp(folder) && gguf_open_memory(&model.gguf, file, sizeof file, &err) == OK);
    subject.options.cache_folder = folder;
    require(pool_create(&subject.pool, 1, &err) == OK);
    struct reader r = { .m = &model, .path = "m.gguf", .options = &subject.options };
    subject.cache = pack_cache_create(&r, 1, WEIGHTS);
    for (int i = 0; i < WEIGHTS; i++)
        subject.weights[i] = (uint8_t)(i * 7);
    pack_cache_take(subject.cache, (const char *)subject.weights, 3);
    pack_cache_write(subject.cache, &subject.options, never);
    subject.path = find_file(folder);
    int fd = open(subject.path, O_RDONLY);
    require(fd >= 0 && read(fd, subject.good, FILE_BYTES) == FILE_BYTES);
    close(fd);
    atexit(remove_all);
}

static void put_file(const uint8_t *bytes, size_t len)
{
    int fd = open(subject.path, O_WRONLY | O_TRUNC);
    require(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

static void put_patched(const uint8_t *patches, size_t len, bool is_made_right)
{
    uint8_t file[FILE_BYTES];
    memcpy(file, subject.good, sizeof file);
    while (len >= 3) {
        size_t at = (size_t)(patches[0] | patches[1] << 8) % FILE_BYTES, n = patches[2];
        patches += 3;
        len -= 3;
        n = n < len ? n : len;
        n = n < FILE_BYTES - at ? n : FILE_BYTES - at;
        memcpy(file + at, patches, n);
        patches += n;
        len -= n;
    }
    if (is_made_right) {
        uint64_t sum = checksum_bytes(file, SUMMED);
        memcpy(file + SUMMED, &sum, sizeof sum);
    }
    put_file(file, sizeof file);
}

static bool is_good(const char *weights)
{
    uint64_t sum = checksum_piece(0, weights, WEIGHTS), told;
    memcpy(&told, weights - PAGE + CHECKSUM_AT, sizeof told);
    return sum == told;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct packed_map map = { 0 };
    const char *first = NULL;

    if (!subject.cache)
        begin();
    if (!len)
        return 0;
    if (bytes[0] & 2)
        put_patched(bytes + 1, len - 1, bytes[0] & 1);
    else
        put_file(bytes + 1, len - 1);
    if (!pack_cache_map(subject.cache, subject.pool, &subject.options, &map, &first)) {
        require(!map.map && !first);
        return 0;
    }
    require(map.map_bytes == FILE_BYTES && first == map.map + PAGE && is_good(first));
    free_packed(&map);
    return 0;
}
