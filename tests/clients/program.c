/* A program that knows only the installed library: completes a prompt. */
#include <stdio.h>
#include <woolly.h>

int main(int argc, char **argv)
{
    struct woolly *w;
    struct woolly_error err = { .text = "usage: program ENDPOINT MODEL" };
    struct woolly_request r;
    struct woolly_event e = { 0 };
    uint64_t id;

    if (argc != 3 || woolly_connect(&w, argv[1], &err) != WOOLLY_OK)
        return fprintf(stderr, "%s\n", err.text), 1;
    woolly_request_init(&r, argv[2], "Once upon a time");
    r.max_tokens = 8;
    if (woolly_submit(w, &r, &id, &err) != WOOLLY_OK)
        return fprintf(stderr, "%s\n", err.text), 1;
    while (woolly_next(w, -1, &e) == WOOLLY_OK)
        printf("%s%s", e.text, e.kind == WOOLLY_ERROR ? e.message : "");
    puts("");
    woolly_close(w);
    return e.kind == WOOLLY_DONE ? 0 : 1;
}
