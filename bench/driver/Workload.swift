import Foundation
import Glibc
import HSMSystem

/// The workloads, by the name and arguments that main.swift lists.
enum Workload {
    struct Refusal: Error, CustomStringConvertible {
        let description: String
    }

    static func run(_ arguments: [String]) throws -> [String: Double] {
        guard let name = arguments.first, arguments.count > 1 else {
            throw Refusal(description: "wanted are a workload and a path")
        }
        let path = arguments[1]
        let numbers = arguments.dropFirst(2).compactMap { Int($0) }
        func number(_ place: Int) throws -> Int {
            guard numbers.count > place, numbers[place] >= 0 else {
                throw Refusal(description: "\(name) wants more numbers")
            }
            return numbers[place]
        }
        switch name {
        case "open-read-close": return try Names.openReadClose(path, count: number(0))
        case "names": return try Names.makeStatRemove(path, count: number(0))
        case "walk": return try Names.walk(path)
        case "hold":
            let result = try Names.walk(path)
            FileHandle.standardOutput.write(Data("ready\n".utf8))
            while getchar() != EOF {}
            return result
        case "read-at":
            return try Content.readAt(
                path, count: number(0), size: number(1), threads: number(2), seed: UInt64(number(3)))
        case "map-at": return try Content.mapAt(path, count: number(0), seed: UInt64(number(1)))
        case "read-all": return try Content.readAll(path, threads: number(0))
        default: throw Refusal(description: "there is no workload \(name)")
        }
    }
}

/// Seconds of a clock that only goes forward.
func seconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Pseudo-random and repeatable (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }
}
