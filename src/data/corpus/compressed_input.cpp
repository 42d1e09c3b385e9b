#include "data/corpus/compressed_input.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/progress.h"

namespace stoker::corpus {
namespace {
constexpr size_t kStoredChunk = size_t{1} << 20;
constexpr size_t kDecodedChunk = size_t{64} << 10;  // small: thousands of small files each have one
constexpr uint64_t kFreeBytes = uint64_t{64} << 20;
constexpr uint64_t kXzMemory = uint64_t{256} << 20;
constexpr int kZstdWindowLog = 27;

std::string_view name_of(Compression c) {
  switch (c) {
    case Compression::kGzip:
      return "gzip";
    case Compression::kZstd:
      return "zstd";
    case Compression::kXz:
      return "xz";
    case Compression::kNone:
      break;
  }
  return "plain";
}
}  // namespace

struct CompressedInput::Decoder {
  z_stream gzip{};
  bool gzip_open = false;
  lzma_stream xz = LZMA_STREAM_INIT;
  ZSTD_DCtx* zstd = nullptr;
  bool between = true;  // between members, frames: a good place for the file to end
  bool done = false;
  ~Decoder() {
    if (gzip_open) inflateEnd(&gzip);
    lzma_end(&xz);
    ZSTD_freeDCtx(zstd);
  }
};

Compression detect_compression(std::string_view b) {
  if (b.starts_with("\x1f\x8b")) return Compression::kGzip;
  if (b.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
  if (b.starts_with(std::string_view("\xfd"
                                     "7zXZ\0",
                                     6)))
    return Compression::kXz;
  return Compression::kNone;
}

CompressedInput::CompressedInput(io::FileSystem& fs, const std::string& path, InputLimits limits)
    : file_(fs.open_read(path, io::Access::kSequential)),
      path_(path),
      limits_(limits),
      decoder_(std::make_unique<Decoder>()) {
  refill();
  compression_ = detect_compression({stored_.data(), stored_.size()});
  bool ready = true;
  if (compression_ == Compression::kGzip) {
    ready = inflateInit2(&decoder_->gzip, 15 + 16) == Z_OK;
    decoder_->gzip_open = ready;
  } else if (compression_ == Compression::kZstd) {
    decoder_->zstd = ZSTD_createDCtx();
    ready = decoder_->zstd &&
            !ZSTD_isError(ZSTD_DCtx_setParameter(decoder_->zstd, ZSTD_d_windowLogMax, kZstdWindowLog));
  } else if (compression_ == Compression::kXz) {
    ready = lzma_stream_decoder(&decoder_->xz, kXzMemory, LZMA_CONCATENATED) == LZMA_OK;
  }
  if (!ready) fail(ErrorKind::kDevice, "{}: no memory for a {} decoder", path_, name_of(compression_));
}

CompressedInput::~CompressedInput() = default;

bool CompressedInput::refill() {
  const uint64_t left = file_->size() - stored_done_;
  stored_.resize(static_cast<size_t>(std::min<uint64_t>(left, kStoredChunk)));
  at_ = 0;
  if (stored_.empty()) return false;
  file_->read_at(stored_done_, stored_.data(), stored_.size());
  hasher_.update(stored_.data(), stored_.size());
  stored_done_ += stored_.size();
  return true;
}

Hash128 CompressedInput::stored_hash() {
  while (refill()) {
  }
  return hasher_.digest();
}

void CompressedInput::corrupt(std::string_view what) const {
  fail(ErrorKind::kData, "{}: corrupt {} data near stored byte {}: {}", path_, name_of(compression_),
       stored_done_ - (stored_.size() - at_), what);
}

void CompressedInput::truncated() const {
  fail(ErrorKind::kData,
       "{}: the file ends at byte {} in the middle of its {} data: it was cut short. Fetch it again", path_,
       file_->size(), name_of(compression_));
}

size_t CompressedInput::read(char* to, size_t bytes) {
  if (bytes == 0) return 0;
  size_t got = 0;
  if (compression_ == Compression::kNone) {
    if (at_ == stored_.size() && !refill()) return 0;
    got = std::min(bytes, stored_.size() - at_);
    std::memcpy(to, stored_.data() + at_, got);
    at_ += got;
  } else {
    // Always decoded in the same steps, whatever the caller asks for: what is still given before a damaged
    // place must not depend on the size of the reads.
    if (decoded_at_ == decoded_end_) decode();
    got = std::min(bytes, decoded_end_ - decoded_at_);
    std::memcpy(to, decoded_.data() + decoded_at_, got);
    decoded_at_ += got;
  }
  produced_ += got;
  return got;
}

void CompressedInput::decode() {
  decoded_at_ = decoded_end_ = 0;
  decoded_.resize(kDecodedChunk);
  const size_t got = compression_ == Compression::kGzip   ? read_gzip(decoded_.data(), decoded_.size())
                     : compression_ == Compression::kZstd ? read_zstd(decoded_.data(), decoded_.size())
                                                          : read_xz(decoded_.data(), decoded_.size());
  const uint64_t consumed = stored_done_ - (stored_.size() - at_);
  if (produced_ + got > kFreeBytes + limits_.max_ratio * consumed)
    fail(ErrorKind::kData,
         "{}: {} stored bytes grew to more than {}: a decompression bomb, or data that is no text. "
         "If you trust it, decompress it first",
         path_, consumed, human_bytes(static_cast<double>(produced_ + got)));
  decoded_end_ = got;
}

size_t CompressedInput::read_gzip(char* to, size_t bytes) {
  z_stream& z = decoder_->gzip;
  const size_t want = std::min<size_t>(bytes, size_t{1} << 30);
  z.next_out = reinterpret_cast<Bytef*>(to);
  z.avail_out = static_cast<uInt>(want);
  while (z.avail_out == want && !decoder_->done) {
    if (at_ == stored_.size() && !refill()) {
      if (!decoder_->between) truncated();
      decoder_->done = true;
      break;
    }
    if (decoder_->between &&
        stored_done_ > stored_.size() - at_) {  // after a member: another one, padding, or garbage
      const bool padding = stored_[at_] == 0;
      if (padding) {
        ++at_;
        continue;
      }
      if (z.total_in > 0) inflateReset(&z);
    }
    decoder_->between = false;
    z.next_in = reinterpret_cast<Bytef*>(stored_.data() + at_);
    z.avail_in = static_cast<uInt>(stored_.size() - at_);
    const int status = inflate(&z, Z_NO_FLUSH);
    at_ = stored_.size() - z.avail_in;
    if (status == Z_STREAM_END) decoder_->between = true;
    else if (status != Z_OK && status != Z_BUF_ERROR) corrupt(z.msg ? z.msg : "not a gzip member");
  }
  return want - z.avail_out;
}

size_t CompressedInput::read_zstd(char* to, size_t bytes) {
  ZSTD_outBuffer out{to, bytes, 0};
  while (out.pos == 0) {
    if (at_ == stored_.size() && !refill()) {
      if (decoder_->between) break;
      ZSTD_inBuffer nothing{nullptr, 0, 0};  // the decoder may still hold output
      const size_t status = ZSTD_decompressStream(decoder_->zstd, &out, &nothing);
      if (ZSTD_isError(status)) corrupt(ZSTD_getErrorName(status));
      decoder_->between = status == 0;
      if (out.pos == 0 && !decoder_->between) truncated();
      break;
    }
    ZSTD_inBuffer in{stored_.data() + at_, stored_.size() - at_, 0};
    const size_t status = ZSTD_decompressStream(decoder_->zstd, &out, &in);
    at_ += in.pos;
    if (ZSTD_isError(status)) corrupt(ZSTD_getErrorName(status));
    decoder_->between = status == 0;
  }
  return out.pos;
}

size_t CompressedInput::read_xz(char* to, size_t bytes) {
  lzma_stream& x = decoder_->xz;
  x.next_out = reinterpret_cast<uint8_t*>(to);
  x.avail_out = bytes;
  while (x.avail_out == bytes && !decoder_->done) {
    const bool more = at_ < stored_.size() || refill();
    x.next_in = reinterpret_cast<const uint8_t*>(stored_.data() + at_);
    x.avail_in = stored_.size() - at_;
    const lzma_ret status = lzma_code(&x, more ? LZMA_RUN : LZMA_FINISH);
    at_ = stored_.size() - x.avail_in;
    if (status == LZMA_STREAM_END) decoder_->done = true;
    else if (status == LZMA_BUF_ERROR && !more) truncated();
    else if (status == LZMA_MEMLIMIT_ERROR) corrupt("it needs more than 256 MiB to decode");
    else if (status != LZMA_OK && status != LZMA_BUF_ERROR)
      corrupt(fmt::format("liblzma error {}", static_cast<int>(status)));
  }
  return bytes - x.avail_out;
}

}  // namespace stoker::corpus
