// llama.cpp on the other end of a pipe: one command a line on standard input, one answer a line.
//
//   peer system              prints llama.cpp's system information
//   peer quantize IN OUT     writes a GGUF file again, every matrix as Q8_0
//   peer run MODEL CONTEXT   loads, says "ready BUFFERS", then obeys:
//     threads N              from here on
//     rewind N               forgets all but N tokens
//     prompt ID..            a new text, as one batch; the last token's logits
//     tokens ID..            more tokens, one batch each; each one's logits
//     check ID..             the same, and the token of the largest logit after each
// Answers: "ok SECONDS [ID..]" or "error WHY". Everything not set here is llama.cpp's default.

#include "llama.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

// Names of the buffers that hold the weights: CPU_REPACK is among them if llama.cpp repacked any.
static std::string buffers;

static void note(ggml_log_level level, const char * text, void *) {
    const std::string line = text;
    const size_t end = line.find(" model buffer size");
    if (end != std::string::npos) {
        const size_t start = line.rfind(' ', end - 1) + 1;
        buffers += " " + line.substr(start, end - start);
    }
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static int fail(const char * why) {
    fprintf(stderr, "peer: %s\n", why);
    return 1;
}

static int quantize(const char * in, const char * out) {
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
    params.allow_requantize = true;
    return llama_model_quantize(in, out, &params) == 0 ? 0 : fail("cannot quantize");
}

struct Peer {
    llama_context * context;
    int vocab;
    double seconds = 0;

    // Whether the tokens were decoded; only this is timed.
    bool decode(std::vector<llama_token> & tokens, size_t first, size_t count) {
        const auto start = std::chrono::steady_clock::now();
        const int status = llama_decode(context, llama_batch_get_one(tokens.data() + first, (int) count));
        const float * logits = status == 0 ? llama_get_logits_ith(context, -1) : nullptr;
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        return logits != nullptr;
    }

    llama_token largest() {
        const float * logits = llama_get_logits_ith(context, -1);
        return (llama_token) (std::max_element(logits, logits + vocab) - logits);
    }

    std::string obey(const std::string & line) {
        std::istringstream words(line);
        std::string command;
        words >> command;
        if (command == "threads") {
            int n = 0;
            words >> n;
            llama_set_n_threads(context, n, n);
            return "ok 0";
        }
        if (command == "rewind") {
            int n = 0;
            words >> n;
            const bool done = llama_memory_seq_rm(llama_get_memory(context), 0, n, -1);
            return done ? "ok 0" : "error llama_memory_seq_rm failed";
        }
        std::vector<llama_token> tokens;
        for (llama_token id; words >> id;) {
            tokens.push_back(id);
        }
        std::ostringstream answer;
        seconds = 0;
        if (command == "prompt") {
            llama_memory_clear(llama_get_memory(context), true);
            const size_t batch = llama_n_batch(context);
            for (size_t at = 0; at < tokens.size(); at += batch) {
                if (!decode(tokens, at, std::min(batch, tokens.size() - at))) {
                    return "error llama_decode failed";
                }
            }
        } else if (command == "tokens" || command == "check") {
            for (size_t at = 0; at < tokens.size(); at++) {
                if (!decode(tokens, at, 1)) {
                    return "error llama_decode failed";
                }
                if (command == "check") {
                    answer << ' ' << largest();
                }
            }
        } else {
            return "error no such command: " + command;
        }
        char took[64];
        snprintf(took, sizeof took, "ok %.9f", seconds);
        return took + answer.str();
    }
};

static int run(const char * path, int context_tokens) {
    llama_model * model = llama_model_load_from_file(path, llama_model_default_params());
    if (model == nullptr) {
        return fail("cannot load the model");
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = context_tokens;
    llama_context * context = llama_init_from_model(model, params);
    if (context == nullptr) {
        return fail("cannot make a context");
    }
    Peer peer { context, llama_vocab_n_tokens(llama_model_get_vocab(model)) };
    std::cout << "ready" << buffers << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        std::cout << peer.obey(line) << std::endl;
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}

int main(int argc, char ** argv) {
    llama_log_set(note, nullptr);
    llama_backend_init();
    const std::string command = argc > 1 ? argv[1] : "";
    if (command == "system" && argc == 2) {
        puts(llama_print_system_info());
        return 0;
    }
    if (command == "quantize" && argc == 4) {
        return quantize(argv[2], argv[3]);
    }
    if (command == "run" && argc == 4) {
        return run(argv[2], std::stoi(argv[3]));
    }
    return fail("usage: peer system | quantize IN OUT | run MODEL CONTEXT");
}
