import CLinux
import Glibc
import HSMSystem
import TestSupport

extension MountTests.RandomOperations.Run {
    /// A range that begins in the file or not far behind it.
    private func range(_ model: MountTests.RandomOperations.Model, most: Int = 300_000) -> Range<Int> {
        var start = random.below(model.size + 5000)
        if random.isTrue(20) { start &= ~0xffff }
        return start..<start + 1 + random.below(random.isTrue(50) ? 5000 : most)
    }

    /// Direct I/O wants whole blocks, and memory that begins at one.
    private func aligned(_ range: Range<Int>, _ handle: Handle) -> Range<Int> {
        handle.isDirect ? range.lowerBound & ~4095..<(range.upperBound + 4095) & ~4095 : range
    }

    private func withMemory<Result>(
        _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Errno) -> Result
    ) throws -> Result {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
        defer { memory.deallocate() }
        return try body(memory)
    }

    func read(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: false) else { return }
        try check(handle, aligned(range(model), handle))
    }

    private func check(_ handle: Handle, _ range: Range<Int>) throws {
        let model = handle.model
        model.note("read \(range)")
        let bytes = try attempt("read", model) {
            try withMemory(range.count) { memory throws(Errno) in
                Array(memory.prefix(try handle.file.read(into: memory, at: range.lowerBound)))
            }
        }
        guard let bytes else { return }
        if !model.matches(bytes, at: range.lowerBound, asked: range.count) {
            throw wrong(model, "has other bytes in \(range): \(bytes.count) of them, first \(bytes.prefix(8))")
        }
    }

    func write(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: true) else { return }
        // Appending directly would want a size of whole blocks.
        if handle.isDirect && handle.isAppending { return }
        let range = aligned(range(model), handle)
        let bytes = Pattern.bytes(range, seed: 5000 + random.below(1000))
        model.note("\(handle.isAppending ? "append" : "write") \(range)")
        let count = try attempt("write", model) {
            try withMemory(range.count) { memory throws(Errno) in
                memory.copyBytes(from: bytes)
                return try handle.file.writeOnce(UnsafeRawBufferPointer(memory), at: range.lowerBound)
            }
        }
        guard let count else { return }
        if count < range.count && !model.mayFail { throw wrong(model, "took \(count) bytes of \(range)") }
        model.write(bytes.prefix(count), at: handle.isAppending ? nil : range.lowerBound)
    }

    func truncate(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: true) else { return }
        let size = random.isTrue(15) ? 0 : random.below(model.size + 100_000)
        model.note("truncate \(size)")
        if try attempt("truncate", model, { try handle.file.truncate(to: size) }) != nil { model.truncate(size) }
    }

    func punch(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: true) else { return }
        let range = range(model)
        model.note("punch \(range)")
        let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
        let result = try attempt("punch", model) {
            try HSMSystem.check { passhsm_fallocate(handle.file.raw, mode, range.lowerBound, range.count) }
        }
        if result != nil { model.punch(range) }
    }

    /// Reads or writes through a mapping. Where that may fail it would be the end of this process.
    func map(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: true), !model.mayFail, let content = model.only else { return }
        let start = random.below(content.count) & ~4095
        let end = min(content.count, start + 1 + random.below(200_000))
        guard start < end else { return }
        let isWrite = random.isTrue(50)
        model.note("map \(start)..<\(end) \(isWrite ? "for writing" : "")")
        count("map")
        let memory = mmap(nil, end - start, PROT_READ | PROT_WRITE, MAP_SHARED, handle.file.raw, start)
        guard let memory, memory != MAP_FAILED else { throw wrong(model, "cannot be mapped: \(errno)") }
        let pages = UnsafeMutableRawBufferPointer(start: memory, count: end - start)
        defer { munmap(memory, end - start) }
        if !model.matches(Array(pages), at: start, asked: end - start) {
            throw wrong(model, "is mapped with other bytes")
        }
        guard isWrite else { return }
        let part = random.below(pages.count)..<pages.count
        let bytes = Pattern.bytes(part, seed: 6000 + random.below(1000))
        pages[part].copyBytes(from: bytes)
        guard msync(memory, end - start, MS_SYNC) == 0 else { throw wrong(model, "cannot be msynced: \(errno)") }
        model.write(bytes, at: start + part.lowerBound)
    }

    func copy(_ from: MountTests.RandomOperations.Model, _ to: MountTests.RandomOperations.Model) throws {
        guard from !== to, let source = try handle(from, writing: false), let target = try handle(to, writing: true),
            !target.isAppending, !from.mayFail, let content = from.only
        else { return }
        let part = range(from).clamped(to: 0..<content.count)
        if part.isEmpty { return }
        let offset = random.below(to.size + 1000)
        to.note("copy \(part) of \(from.name) to \(offset)")
        let count = try attempt("copy", to) {
            var (start, end) = (part.lowerBound, offset)
            return try HSMSystem.check {
                passhsm_copy_file_range(source.file.raw, &start, target.file.raw, &end, part.count, 0)
            }
        }
        guard let count, count > 0 else { return }
        to.write(content[part.lowerBound..<part.lowerBound + count], at: offset)
    }

    func sync(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: true) else { return }
        model.note("fsync")
        _ = try attempt("fsync", model) { try handle.file.fsync() }
    }

    func checkSize(_ model: MountTests.RandomOperations.Model) throws {
        guard let handle = try handle(model, writing: false) else { return }
        let size = try Int(handle.file.stat().st_size)
        model.note("size \(size)")
        if !model.matches(size: size) { throw wrong(model, "has \(size) bytes") }
    }

    /// Every byte of every file.
    func checkAll() throws {
        count("whole")
        for model in models {
            guard let handle = try handle(model, writing: false) else { continue }
            try check(handle, aligned(0..<model.size + 5000, handle))
        }
    }

    func command(_ name: String, _ model: MountTests.RandomOperations.Model) throws {
        count(name)
        if random.isTrue(80) { handles.removeAll { $0.model === model } }
        let wasDirty = model.isDirty
        let output = try passhsm(name, mirror.at(model.name))
        model.note("\(name): \(output.code)")
        if output.code != 0 { count("\(name): refused") }
        guard output.code <= 1 else { throw wrong(model, "\(output)") }
        if name == "release" && output.code == 0 && wasDirty { throw wrong(model, "was released, and had changes") }
        if name == "recall" && output.code != 0 && !model.mayFail { throw wrong(model, "was not recalled: \(output)") }
    }
}
