//! Arguments as the host checks and completes them: one CBOR map in the manifest's order.

use ciborium::Value;
use conclave_protocol::plugin::{Param, ParamKind};

/// The map that the guest gets, or what is wrong.
pub(super) fn complete(params: &[Param], given: Value) -> Result<Value, String> {
    let mut values: Vec<Option<Value>> = vec![None; params.len()];
    match given {
        Value::Null => {}
        Value::Array(positional) => {
            if positional.len() > params.len() {
                return Err(format!("{} arguments, it takes {} at most", positional.len(), params.len()));
            }
            for (at, value) in positional.into_iter().enumerate() {
                values[at] = Some(value);
            }
        }
        Value::Map(named) => {
            for (name, value) in named {
                let at = name.as_text().and_then(|name| params.iter().position(|param| param.name == name));
                let at = at.ok_or_else(|| format!("it has no parameter {name:?}"))?;
                if values[at].replace(value).is_some() {
                    return Err(format!("{} is given twice", params[at].name));
                }
            }
        }
        _ => return Err("arguments are a map, an array, or nothing".to_owned()),
    }
    let mut map = Vec::with_capacity(params.len());
    for (param, value) in params.iter().zip(values) {
        let value = match (value, &param.default) {
            (Some(Value::Null), _) if param.optional => Value::Null,
            (Some(value), _) => convert(param, value)?,
            (None, Some(default)) => convert(param, Value::Text(default.clone()))?,
            (None, None) if param.optional => Value::Null,
            (None, None) => return Err(format!("{} is missing", param.name)),
        };
        map.push((Value::Text(param.name.clone()), value));
    }
    Ok(Value::Map(map))
}

/// A value of the parameter's type; texts are read as one would write them.
fn convert(param: &Param, value: Value) -> Result<Value, String> {
    let shown = format!("{value:?}");
    let wrong = || format!("{}: {shown} is not of type {}", param.name, param.kind.name());
    let converted = match (param.kind, value) {
        (ParamKind::Path, Value::Text(text)) => {
            let path = conclave_protocol::Path::parse(&text).map_err(|error| format!("{}: {error}", param.name))?;
            Some(Value::Text(path.as_str().to_owned()))
        }
        (ParamKind::Text, value @ Value::Text(_))
        | (ParamKind::Integer, value @ Value::Integer(_))
        | (ParamKind::Number, value @ Value::Float(_))
        | (ParamKind::Boolean, value @ Value::Bool(_))
        | (ParamKind::Bytes, value @ Value::Bytes(_)) => Some(value),
        (ParamKind::Integer, Value::Text(text)) => text.parse::<i64>().ok().map(Value::from),
        (ParamKind::Number, Value::Text(text)) => text.parse::<f64>().ok().map(Value::from),
        #[allow(clippy::cast_precision_loss, reason = "a number is floating point")]
        (ParamKind::Number, Value::Integer(number)) => Some(Value::Float(i128::from(number) as f64)),
        (ParamKind::Boolean, Value::Text(text)) => text.parse::<bool>().ok().map(Value::from),
        (ParamKind::Bytes, Value::Text(text)) => Some(Value::Bytes(text.into_bytes())),
        (ParamKind::Duration, Value::Text(text)) => duration(&text).map(Value::from),
        (ParamKind::Duration, Value::Integer(ms)) => u64::try_from(ms).ok().map(Value::from),
        (ParamKind::Json, Value::Text(text)) => {
            let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            Some(json.and_then(|json| Value::serialized(&json).ok()).unwrap_or(Value::Text(text)))
        }
        (ParamKind::Json, value) => Some(value),
        _ => None,
    };
    converted.ok_or_else(wrong)
}

/// `500ms`, `10s`, `2m`, `1h`, or milliseconds.
fn duration(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn completed(given: crate::Value) -> Result<String, String> {
        let texts = ["path: path", "for: duration = 10s", "note?: text", "weight: integer = 1", "data: bytes = x"];
        let params: Vec<Param> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let map = complete(&params, Value::serialized(&given).unwrap())?;
        let Value::Map(map) = map else { panic!("a map") };
        let shown = map.iter().map(|(name, value)| match value {
            Value::Integer(number) => format!("{}={}", name.as_text().unwrap(), i128::from(*number)),
            value => format!("{}={value:?}", name.as_text().unwrap()),
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_parameter_is_there_in_the_manifests_order() {
        assert_eq!(
            completed(json!({"weight": "5", "path": "/a"})).unwrap(),
            r#"path=Text("/a") for=10000 note=Null weight=5 data=Bytes([120])"#
        );
        assert!(completed(json!(["/a", "2m", "n", 3])).unwrap().contains("for=120000"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (given, why) in [
            (json!({}), "path is missing"),
            (json!({"path": "a"}), "does not begin with /"),
            (json!({"path": "/a", "x": 1}), "no parameter"),
            (json!({"path": "/a", "weight": "x"}), "weight: Text(\"x\") is not of type integer"),
            (json!({"path": "/a", "for": "x"}), "not of type duration"),
            (json!(["/a", 1, "n", 1, "x", 1]), "6 arguments, it takes 5 at most"),
            (json!(1), "a map"),
        ] {
            let error = completed(given).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
