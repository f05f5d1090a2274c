#include "broker/config_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

enum { MAX_FILE_BYTES = 1 << 20 };

struct reader {
    const char *path;
    yaml_document_t document;
    const struct config_sink *sink;
    struct error *err;
};

static int line_of(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

static enum status fail_at(const struct reader *r, const yaml_node_t *node, enum status s, const char *text)
{
    return error_set(r->err, s, "%s:%d: %s", r->path, line_of(node), text);
}

static yaml_node_t *node_at(struct reader *r, int index)
{
    return yaml_document_get_node(&r->document, index);
}

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static bool is_text(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && strlen(text_of(node)) == node->data.scalar.length;
}

static enum status take(struct reader *r, const yaml_node_t *at, const char *section, const char *key,
                        const char *value)
{
    struct error why = { .text = "" };
    char text[sizeof why.text + 64];
    enum status s = r->sink->take(r->sink->context, section, key, value, &why);
    if (s == OK)
        return OK;
    /* The settings are called like the options of the command line. */
    snprintf(text, sizeof text, "%s: %s", section, why.text + (strncmp(why.text, "--", 2) ? 0 : 2));
    return fail_at(r, at, s, text);
}

static enum status check_key(struct reader *r, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = node_at(r, pair->key);
    char text[200];
    if (!is_text(key))
        return fail_at(r, key, E_FORMAT, "a key is one word");
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
        if (!strcmp(text_of(node_at(r, p->key)), text_of(key))) {
            snprintf(text, sizeof text, "%.100s is there twice", text_of(key));
            return fail_at(r, key, E_FORMAT, text);
        }
    }
    return OK;
}

/* KEY: VALUE, ... */
static enum status take_map(struct reader *r, const char *section, const yaml_node_t *map)
{
    char text[250];
    if (map->type != YAML_MAPPING_NODE) {
        snprintf(text, sizeof text, "%s: here would be right: KEY: VALUE", section);
        return fail_at(r, map, E_FORMAT, text);
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        enum status s = check_key(r, map, p);
        if (s != OK)
            return s;
        const yaml_node_t *key = node_at(r, p->key), *value = node_at(r, p->value);
        if (!is_text(value)) {
            snprintf(text, sizeof text, "%s: %.100s: one value would be right, not a list or more keys",
                     section, text_of(key));
            return fail_at(r, value, E_FORMAT, text);
        }
        if ((s = take(r, key, section, text_of(key), text_of(value))) != OK)
            return s;
    }
    return OK;
}

static enum status take_models(struct reader *r, const yaml_node_t *list)
{
    if (list->type != YAML_SEQUENCE_NODE)
        return fail_at(r, list, E_FORMAT,
                       "models: a list would be right, each model beginning with \"- path: FILE\"");
    for (yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top; i++) {
        const yaml_node_t *item = node_at(r, *i);
        enum status s = take_map(r, "models", item);
        if (s == OK)
            s = take(r, item, "models", NULL, NULL);
        if (s != OK)
            return s;
    }
    return OK;
}

static bool is_empty(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0;
}

static enum status take_root(struct reader *r, const yaml_node_t *root)
{
    if (root->type != YAML_MAPPING_NODE)
        return fail_at(r, root, E_FORMAT, "sections would be right, for example \"server:\"");
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
        enum status s = check_key(r, root, p);
        if (s != OK)
            return s;
        const yaml_node_t *value = node_at(r, p->value);
        const char *section = text_of(node_at(r, p->key));
        if (is_empty(value)) /* everything in it is commented out */
            s = take(r, node_at(r, p->key), section, "", "");
        else
            s = strcmp(section, "models") ? take_map(r, section, value) : take_models(r, value);
        if (s != OK)
            return s;
    }
    return OK;
}

static enum status explain(const struct reader *r, const yaml_parser_t *parser)
{
    return error_set(r->err, E_FORMAT, "%s:%d: this is not YAML: %s", r->path,
                     (int)parser->problem_mark.line + 1, parser->problem ? parser->problem : "no memory");
}

static enum status read_document(struct reader *r, yaml_parser_t *parser)
{
    if (!yaml_parser_load(parser, &r->document))
        return explain(r, parser);
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    enum status s = !root || is_empty(root) ? OK : take_root(r, root);
    yaml_document_delete(&r->document);
    if (s != OK || !root)
        return s;
    if (!yaml_parser_load(parser, &r->document))
        return explain(r, parser);
    if ((root = yaml_document_get_root_node(&r->document)))
        s = fail_at(r, root, E_FORMAT, "a second document begins, which nobody would read");
    yaml_document_delete(&r->document);
    return s;
}

enum status config_file_read(const char *path, const struct config_sink *sink, struct error *err)
{
    struct reader r = { .path = path, .sink = sink, .err = err };
    yaml_parser_t parser;
    struct stat st;

    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) != 0) {
        error_errno(err, "cannot read the configuration %s", path);
        if (f)
            fclose(f);
        return E_IO;
    }
    enum status s;
    if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE_BYTES) {
        s = error_set(err, E_LIMIT, "cannot read the configuration %s: it is not a file of at most %d bytes",
                      path, MAX_FILE_BYTES);
    } else if (!yaml_parser_initialize(&parser)) {
        s = error_set(err, E_NOMEM, "no memory to read %s", path);
    } else {
        yaml_parser_set_input_file(&parser, f);
        s = read_document(&r, &parser);
        yaml_parser_delete(&parser);
    }
    fclose(f);
    return s;
}
