//! Parts of `amqp://user:password@host:port/vhost?parameters`.

/// Its `host:port`.
pub fn address_of(uri: &str) -> &str {
    let address = uri.trim_start_matches("amqp://");
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    address.split(['/', '?']).next().unwrap_or_default()
}

/// The URI with one parameter, `name=value`, more.
pub fn with_parameter(uri: &str, parameter: &str) -> String {
    format!("{uri}{}{parameter}", if uri.contains('?') { '&' } else { '?' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_where_the_vhost_or_the_parameters_begin() {
        for uri in ["amqp://h:1", "amqp://u:p@h:1", "amqp://u:p@h:1/v", "amqp://h:1?transport=lapin"] {
            assert_eq!(address_of(uri), "h:1", "{uri}");
        }
    }

    #[test]
    fn parameters_are_added_one_after_another() {
        assert_eq!(with_parameter(&with_parameter("amqp://h", "a=1"), "b=2"), "amqp://h?a=1&b=2");
    }
}
